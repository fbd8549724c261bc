package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// tighten tightens the policies by settings, a line or the text between two
// semicolons for each method:
//
//	bff.v1.AuthService/Login rate=5/m burst=5
//	bff.v1.AccountService/GetMe limit=1s; bff.v1.UserService/ListUsers rate=2/s
//
// It ignores empty lines and comments after a #. It returns every mistake: an unknown
// method, an option that settings cannot change, and a value that would allow more than
// the schema does.
func tighten(methods []*Method, settings string) error {
	byName := map[string]*Method{}
	for _, m := range methods {
		byName[strings.TrimPrefix(m.Procedure, "/")] = m
	}
	seen := map[string]bool{}
	var faults []error
	for line := range strings.Lines(settings) {
		line, _, _ = strings.Cut(line, "#")
		for one := range strings.SplitSeq(line, ";") {
			words := strings.Fields(one)
			if len(words) == 0 {
				continue
			}
			name := strings.TrimPrefix(words[0], "/")
			m := byName[name]
			switch {
			case m == nil:
				faults = append(faults, fmt.Errorf("%s: there is no such method", words[0]))
			case seen[name]:
				faults = append(faults, fmt.Errorf("%s: the method has two entries", words[0]))
			case len(words) == 1:
				faults = append(faults, fmt.Errorf("%s: the entry has no options: add limit=, rate= or burst=", words[0]))
			default:
				if err := m.tighten(words[1:]); err != nil {
					faults = append(faults, fmt.Errorf("%s: %w", words[0], err))
				}
			}
			seen[name] = true
		}
	}
	return errors.Join(faults...)
}

// tighten tightens one policy by options such as "limit=1s", "rate=10/m" and "burst=5".
func (p *Method) tighten(words []string) error {
	options := map[string]string{}
	for _, word := range words {
		knob, value, ok := strings.Cut(word, "=")
		if !ok || knob != "limit" && knob != "rate" && knob != "burst" {
			return fmt.Errorf("%q cannot be set: settings may only tighten limit=, rate= and burst=", word)
		}
		if value == "" || options[knob] != "" {
			return fmt.Errorf("%s= must have one value", knob)
		}
		options[knob] = value
	}
	if options["limit"] != "" {
		if err := p.tightenLimit(options["limit"]); err != nil {
			return err
		}
	}
	if options["rate"] != "" || options["burst"] != "" {
		return p.tightenRate(options["rate"], options["burst"])
	}
	return nil
}

func (p *Method) tightenLimit(text string) error {
	limit, err := time.ParseDuration(text)
	switch {
	case err != nil || limit <= 0:
		return fmt.Errorf("limit=%s is not a duration: use for example 500ms or 2s", text)
	case p.TimeLimit == 0:
		return errors.New("a stream has no time limit to tighten")
	case limit > p.TimeLimit:
		return fmt.Errorf("limit=%s is looser than the schema's %s: settings may only tighten", text, p.TimeLimit)
	}
	p.TimeLimit = limit
	return nil
}

// tightenRate lowers the rate. The default of the burst is the lower of the schema's burst
// and the new count.
func (p *Method) tightenRate(text, burst string) error {
	rate := Rate{}
	switch {
	case text != "":
		count, period, _ := strings.Cut(text, "/")
		rate.Count, _ = strconv.Atoi(count)
		rate.Period = periods[period]
		if rate.Period == 0 {
			rate.Period, _ = time.ParseDuration(period)
		}
		rate.Burst = rate.Count
		if p.Rate != nil {
			rate.Burst = min(rate.Count, p.Rate.Burst)
		}
	case p.Rate != nil:
		rate = *p.Rate
	default:
		return errors.New("burst= needs a rate=, because the schema has no rate")
	}
	if burst != "" {
		rate.Burst, _ = strconv.Atoi(burst)
	}
	switch err := rate.check(); {
	case err != nil:
		return fmt.Errorf("rate=%s burst=%s %w: use for example rate=10/m burst=5", text, burst, err)
	case p.Rate != nil && !rate.within(p.Rate):
		return fmt.Errorf("rate=%s is looser than the schema's %s: settings may only tighten", &rate, p.Rate)
	}
	p.Rate = &rate
	return nil
}
