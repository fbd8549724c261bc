package app

import "gatehouse/auth/passwords"

// passwordListFlags name the list of breached passwords.
type passwordListFlags struct {
	PasswordList string `env:"GATEHOUSE_PASSWORD_LIST" placeholder:"FOLDER" help:"Refuse new passwords that are in this offline list: a folder with one file for each five-digit prefix, as the downloader of Have I Been Pwned writes it (SHA-1). The built-in list of common passwords always applies."`

	list *passwords.BreachedList // nil for none
}

func (f *passwordListFlags) check(c *checks) {
	f.list = nil
	if f.PasswordList == "" {
		return
	}
	list := &passwords.BreachedList{Folder: f.PasswordList}
	if err := list.Check(); err != nil {
		c.add("GATEHOUSE_PASSWORD_LIST", err.Error(), "name the folder that the downloader wrote its files into")
		return
	}
	f.list = list
}
