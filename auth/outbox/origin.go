package outbox

import (
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

// Circumstances returns a mail's values about the request that caused it.
func Circumstances(origin *authv1.Origin) map[string]string {
	return map[string]string{
		"ip_address": origin.GetIpAddress(), "user_agent": origin.GetUserAgent(), "time": time.Now().UTC().Format(time.RFC3339),
	}
}

// LocaleOf returns the language of a mail to an account's owner: that of the
// request if the owner may have made it, otherwise the default.
func LocaleOf(origin *authv1.Origin, account string) string {
	if by := origin.GetAccountId(); by != "" && by != account {
		return ""
	}
	return origin.GetLocale()
}
