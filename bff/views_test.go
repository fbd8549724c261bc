package bff

import (
	"testing"

	authv1 "gatehouse/gen/auth/v1"
)

func TestAPersonSeesTheIdsOfTheirKeysAndNotOfWebhooks(t *testing.T) {
	t.Parallel()
	const person, target = "0195514a-2f40-7cc3-98c4-dc0c0c07398f", "0195514a-2f40-7cc3-98c4-dc0c0c073990"
	for event, want := range map[string]string{"apikey.create": target, "apikey.revoke": target, "webhook.fail": ""} {
		for _, actor := range []string{person, "", "0195514a-2f40-7cc3-98c4-dc0c0c073991"} {
			own := ownEventsOf(person, []*authv1.AuditEvent{{Event: event, AccountId: person, ActorId: actor, TargetId: target}})
			if got := own[0].GetTargetId(); got != want {
				t.Errorf("%s by %q names %q, want %q", event, actor, got, want)
			}
		}
	}
}
