package outbox

import (
	"time"

	authv1 "gatehouse/gen/auth/v1"
)

// circumstances are what a mail says of the request that it is about.
func Circumstances(origin *authv1.Origin) map[string]string {
	return map[string]string{
		"ip_address": origin.GetIpAddress(), "user_agent": origin.GetUserAgent(), "time": time.Now().UTC().Format(time.RFC3339),
	}
}

// localeOf is the language of a mail to an account's owner: that of the request
// if they may have made it, else the default.
func LocaleOf(origin *authv1.Origin, account string) string {
	if by := origin.GetAccountId(); by != "" && by != account {
		return ""
	}
	return origin.GetLocale()
}
