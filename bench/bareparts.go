package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
)

// The requests of bareParts.
const (
	userInOne = iota
	userInThree
	userBare
	meInOne
	accountBare
	sessionsBare
	profileBare
	barePartsCount
)

// bareParts are GetUser and GetMe, compared with bare handlers that select the same
// rows and write them as JSON.
type bareParts struct {
	turns  [barePartsCount][]turn
	rounds int
}

// askBare is a request to a bare handler, or GetUser: the id is in the body of both.
func askBare(line string) ask {
	return ask{
		line: "POST " + line, extra: "Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\n",
		body: func(p *person) string { return `{"userId":"` + p.accountID + `"}` },
		check: func(status int, body []byte) error {
			if err := succeeded(status, body); err != nil {
				return err
			}
			if !bytes.Contains(body, []byte(`"id":"`)) {
				return fmt.Errorf("%s: the response has no id: %s", line, body)
			}
			return nil
		},
	}
}

// measureBareParts starts the bare handlers in one process of their own.
func (r *results) measureBareParts(ctx context.Context, h *stack, o options, progress io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	hand, handAt, err := h.begin(ctx, "bare-handlers", self, bareHandlersCommand, bareDatabaseVariable+"="+h.database.URL(databaseName))
	if err != nil {
		return err
	}
	defer hand.stop()
	of := func(s system, a ask) system {
		s.ask = a
		return s
	}
	one, three := h.systems[oneProcess], h.systems[threeProcesses]
	byHand := system{address: handAt, gateway: hand, servers: []*process{hand}}
	getUser := askBare("/bff.v1.UserService/GetUser")
	systems := [barePartsCount]system{
		userInOne: of(one, getUser), userInThree: of(three, getUser), userBare: of(byHand, askBare("/user")),
		meInOne: of(one, overJSON), accountBare: of(byHand, askBare("/account")),
		sessionsBare: of(byHand, askBare("/sessions")), profileBare: of(byHand, askBare("/profile")),
	}
	m := &r.bareParts
	var series []*[]turn
	for which := range m.turns {
		series = append(series, &m.turns[which])
	}
	round := func(round int) error {
		for turn := range barePartsCount {
			which := (round + turn) % barePartsCount
			taken, err := h.measure(ctx, systems[which], o)
			if err != nil {
				return err
			}
			m.turns[which] = append(m.turns[which], taken)
		}
		return nil
	}
	m.rounds, err = o.repeat(progress, "bare parts", round, func() [][]float64 {
		return [][]float64{cpuRatio(m.turns[userInOne], m.turns[userBare]), m.meRatio()}
	}, series...)
	return err
}

// sum returns the CPU time of GetMe's bare parts together.
func (m *bareParts) sum() []float64 {
	var sums []float64
	for i := range m.turns[profileBare] {
		sums = append(sums, m.turns[accountBare][i].cpu()+m.turns[sessionsBare][i].cpu()+m.turns[profileBare][i].cpu())
	}
	return sums
}

func (m *bareParts) meRatio() []float64 { return over(mapped(m.turns[meInOne], turn.cpu), m.sum()) }

func (m *bareParts) print(t *table) {
	if len(m.turns[userBare]) == 0 {
		return
	}
	t.row("GetUser by JSON: CPU µs/request, all of ours", spread("%.0f", mapped(m.turns[userInOne], turn.cpu)), spread("%.0f", mapped(m.turns[userInThree], turn.cpu)))
	t.row("  a bare handler: one select, JSON", spread("%.0f", mapped(m.turns[userBare], turn.cpu)))
	one := cpuRatio(m.turns[userInOne], m.turns[userBare])
	t.steady("≤ 2.0", median(one) <= 2, one, "  one process ÷ the bare handler", spread("%.2f", one),
		spread("%.2f", cpuRatio(m.turns[userInThree], m.turns[userBare])))
	t.row("GetMe by JSON: CPU µs/request", spread("%.0f", mapped(m.turns[meInOne], turn.cpu)))
	t.row("  bare handlers of account, sessions and profile, together", spread("%.0f", m.sum()))
	me := m.meRatio()
	t.steady("≤ 1.2", median(me) <= 1.2, me, "  one process ÷ the bare handlers", spread("%.2f", me))
	t.rounds("bare parts", m.rounds, len(m.turns[userBare]))
}
