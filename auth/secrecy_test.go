package auth_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	authv1 "gatehouse/gen/auth/v1"
	"gatehouse/internal/fault"
)

// samples is how many calls are timed with an account and how many without.
const samples = 1000

// Guarantee 5: neither the answer nor its time tells whether an email has an
// account.
func TestNobodyLearnsWhoHasAnAccount(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	asker, _ := h.signedUp(t, "asker@example.com")
	origin := h.origin(t, asker)
	// Each sample has an email of its own, so that no call finds what another
	// left behind. The accounts share one real hash.
	h.exec(t, `INSERT INTO auth.accounts (id, email, password_hash)
		SELECT gen_random_uuid(), 'person' || n || '@there.example', a.password_hash
		FROM auth.accounts a, generate_series(10000, 10000 + $1 - 1) n WHERE a.email = 'asker@example.com'`, 2*samples)
	h.exec(t, "ANALYZE auth.accounts")

	for _, test := range []struct {
		name string
		call func(email string) (proto.Message, error)
	}{
		{"Login", func(email string) (proto.Message, error) {
			return h.sessions.Login(t.Context(), &authv1.LoginRequest{Email: email, Password: "a wrong password", Origin: &authv1.Origin{IpAddress: "192.0.2.1"}})
		}},
		{"CreateAccount", func(email string) (proto.Message, error) {
			return h.accounts.CreateAccount(t.Context(), &authv1.CreateAccountRequest{AccountId: asker.GetId(), Email: email, Password: password, SignIn: true})
		}},
		{"RequestPasswordReset", func(email string) (proto.Message, error) {
			return h.links.RequestPasswordReset(t.Context(), &authv1.RequestPasswordResetRequest{Email: email})
		}},
		{"RequestEmailChange", func(email string) (proto.Message, error) {
			return h.links.RequestEmailChange(t.Context(), &authv1.RequestEmailChangeRequest{NewEmail: email, Origin: origin})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.exec(t, "UPDATE auth.sessions SET authenticate_time = now()")
			// An area under the curve of 0.5 is a coin's toss. With so many
			// samples that tell nothing, one lies 0.05 away from it once in ten
			// thousand runs, by chance; two in a row never do.
			var seen []float64
			for try := range 2 {
				with, without := h.timeBoth(t, try*samples, test.call)
				area := areaUnderCurve(with, without)
				t.Logf("area %.3f; medians %v with an account, %v without", area, median(with), median(without))
				if area > 0.45 && area < 0.55 {
					return
				}
				seen = append(seen, area)
			}
			t.Errorf("the time of %d calls a side tells who has an account: areas %.3f, want 0.45 to 0.55", samples, seen)
		})
	}
}

// timeBoth times calls for emails with and without an account in random order,
// so that whatever else the machine does falls on both alike, and checks that
// all answers are the same.
func (h *harness) timeBoth(t *testing.T, from int, call func(email string) (proto.Message, error)) (with, without []time.Duration) {
	t.Helper()
	var emails []string
	for n := range samples {
		emails = append(emails, fmt.Sprintf("person%d@there.example", 10000+from+n),
			fmt.Sprintf("person%d@never.example", 10000+from+n))
	}
	rand.Shuffle(len(emails), func(i, j int) { emails[i], emails[j] = emails[j], emails[i] })
	exists := func(email string) bool { return email[len("person10000"):] == "@there.example" }
	var first string
	for i, email := range emails {
		if i%20 == 0 { // so that calls don't grow slower, which would hide a difference
			h.exec(t, "TRUNCATE auth.links, auth.mails")
		}
		start := time.Now()
		message, err := call(email)
		took := time.Since(start)
		for fault.Reason(err) == "TOO_MANY_PASSWORD_CHECKS" { // others hash too
			start = time.Now()
			message, err = call(email)
			took = time.Since(start)
		}
		answer := answerOf(t, message, err)
		if first == "" {
			first = answer
		}
		if answer != first {
			t.Fatalf("got the answers %q and %q, want one", first, answer)
		}
		if exists(email) {
			with = append(with, took)
		} else {
			without = append(without, took)
		}
	}
	return with, without
}

// answerOf is all that a caller gets, as bytes.
func answerOf(t *testing.T, message proto.Message, err error) string {
	t.Helper()
	if err != nil {
		if reason := fault.Reason(err); reason != "CREDENTIALS_INVALID" {
			t.Fatalf("got %v, want a refusal of credentials or none", err)
		}
		return fmt.Sprint(connect.CodeOf(err), err, fault.Reason(err))
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return string(encoded)
}

// areaUnderCurve returns the probability that a sample of a is larger than one of b,
// where a tie counts as half (Mann and Whitney's U divided by the number of pairs). It
// measures how well an attacker who chooses the best threshold can distinguish the two
// by their times.
func areaUnderCurve(a, b []time.Duration) float64 {
	b = slices.Sorted(slices.Values(b))
	var above float64
	for _, value := range a {
		less := sort.Search(len(b), func(i int) bool { return b[i] >= value })
		notMore := sort.Search(len(b), func(i int) bool { return b[i] > value })
		above += float64(less) + float64(notMore-less)/2
	}
	return above / float64(len(a)*len(b))
}

func median(times []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

func TestTheAreaUnderTheCurveTellsHowFarApartTwoSamplesAre(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b []time.Duration
		want float64
	}{
		{[]time.Duration{3, 4}, []time.Duration{1, 2}, 1},
		{[]time.Duration{1, 2}, []time.Duration{3, 4}, 0},
		{[]time.Duration{1, 2, 3}, []time.Duration{3, 2, 1}, 0.5},
		{[]time.Duration{2, 2}, []time.Duration{1, 2}, 0.75},
	} {
		if got := areaUnderCurve(test.a, test.b); got != test.want {
			t.Errorf("of %v and %v: got %v, want %v", test.a, test.b, got, test.want)
		}
	}
}

// What is left in the database is the same too, until the mail is sent.
func TestRequestsForAnEmailLeaveTheSameRowsWhetherItHasAnAccountOrNot(t *testing.T) {
	t.Parallel()
	rows := map[string]string{}
	for _, email := range []string{"ada@example.com", "eve@example.com"} {
		h := newHarness(t, byLink)
		asker, _ := h.signedUp(t, "asker@example.com")
		h.create(t, "ada@example.com", password)
		h.register(t, email)
		h.requestReset(t, email)
		h.requestEmail(t, asker, email)
		for table, columns := range map[string]string{
			"links":        "kind, (account_id IS NULL)::text, (profile - 'proof')::text, octet_length(profile ->> 'proof')::text, end_reason",
			"mails":        "kind, (account_id IS NULL)::text, locale, octet_length(sealed_values)::text, attempts::text",
			"audit_events": "event, outcome, reason, (account_id IS NULL)::text",
			"accounts":     "email, version::text",
			"throttles":    "failures::text",
		} {
			var got string
			err := h.owner.QueryRow(t.Context(), "SELECT coalesce(string_agg(concat_ws(' ', "+columns+"), '|' ORDER BY concat_ws(' ', "+columns+")), '') FROM auth."+table).Scan(&got)
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := rows[table]; ok && before != got {
				t.Errorf("%s: got %q with an account and %q without", table, before, got)
			}
			rows[table] = got
		}
	}
}

func TestOnlyTheOwnerLearnsThatAnAccountIsDisabled(t *testing.T) {
	t.Parallel()
	h := newHarness(t, byLink)
	account, _ := h.signedUp(t, "ada@example.com")
	_, err := h.accounts.SetAccountStatus(t.Context(), &authv1.SetAccountStatusRequest{AccountId: account.GetId(), Status: authv1.AccountStatus_ACCOUNT_STATUS_DISABLED})
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := h.login(t, "ada@example.com", "a wrong password")
	_, none := h.login(t, "nobody@example.com", "a wrong password")
	if a, b := answerOf(t, nil, wrong), answerOf(t, nil, none); a != b {
		t.Errorf("Login of a disabled account answers %q, of an unknown account %q; want the same", a, b)
	}
	_, right := h.login(t, "ada@example.com", password)
	wantReason(t, right, connect.CodePermissionDenied, "ACCOUNT_DISABLED")
	h.register(t, "ada@example.com")
	h.requestReset(t, "ada@example.com")
	h.wantMails(t)
}
