package mail

// pageLinks are the addresses of the pages that a mail's advice leads to. Each is empty
// where there are no pages.
type pageLinks struct {
	SignIn, Recover                                       string
	Email, Password, Factors, Sessions, Connections, Keys string
	// Webhooks is for administrators.
	Webhooks string
}

// pagesAt returns the addresses below a site, and none without a site.
func pagesAt(site string) pageLinks {
	if site == "" {
		return pageLinks{}
	}
	return pageLinks{
		SignIn: site + "/sign-in", Recover: site + "/recover",
		Email: site + "/account/email", Password: site + "/account/password", Factors: site + "/account/factors",
		Sessions: site + "/account/sessions", Connections: site + "/account/connections", Keys: site + "/account/keys",
		Webhooks: site + "/console/webhooks",
	}
}
