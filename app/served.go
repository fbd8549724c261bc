package app

import (
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	servicev1 "gatehouse/gen/service/v1"
)

// checkServed compares the proto services that a service registers with its
// definition. One that is not registered would fail at the first call; one that the
// definition does not name would be on no page.
func (d Definition) checkServed(register func(*connect.Server)) error {
	served := map[string]bool{}
	if register != nil {
		survey := connect.NewServer()
		register(survey)
		for spec := range survey.Specs() {
			name, _, _ := strings.Cut(strings.TrimPrefix(spec.Procedure, "/"), "/")
			served[name] = true
		}
	}
	for name := range served {
		if !slices.Contains(d.Serves, name) && !strings.HasPrefix(name, "service.v1.") {
			return fmt.Errorf("it serves %s, which its definition does not name: add it to Serves", name)
		}
	}
	for _, name := range d.Serves {
		if !served[name] {
			return fmt.Errorf("it does not serve %s, which its definition names in Serves", name)
		}
	}
	if me := d.Public.Me; me != nil {
		if name, _, _ := strings.Cut(strings.TrimPrefix(me.Procedure, "/"), "/"); !served[name] {
			return fmt.Errorf("it does not serve %s, which its part of GetMe calls: name a method of its own in Procedure", me.Procedure)
		}
	}
	const changes, person = servicev1.ChangeServiceName, servicev1.PersonServiceName
	switch {
	case len(d.Tells) > 0 && !served[changes]:
		return fmt.Errorf("its definition names kinds of changes in Tells, and it does not serve %s: register its feed", changes)
	case d.Person && !served[person]:
		return fmt.Errorf("it holds data about people, and does not serve %s, which exports them: implement ExportPerson", person)
	case d.Person && d.Lifecycle == LifecycleNone:
		return fmt.Errorf("it holds data about people, and does not follow the deletions of accounts: set Lifecycle, so that it erases their data")
	}
	return nil
}
