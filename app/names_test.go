package app

import "testing"

func TestDistanceCountsTypingErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"SMTP_URL", "SMTP_URL", 0}, {"SMTP_ULR", "SMTP_URL", 1}, {"SMTP_UR", "SMTP_URL", 1}, {"SMTPP_URL", "SMTP_URL", 1},
		{"SNTP_URL", "SMTP_URL", 1}, {"", "SMTP", 4}, {"REDIS_URL", "SMTP_URL", 5},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
