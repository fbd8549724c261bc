package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"gatehouse/e2e/harness"
	bffv1 "gatehouse/gen/bff/v1"
)

func TestSessionsAreSeenAndEndedByTheirOwnerAndByAdministrators(t *testing.T) {
	t.Parallel()
	for _, shape := range harness.Shapes {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, shape)
			ada := s.SignUp(t, "ada@example.com")
			admin := s.Admin(t).Client()
			login := func(userAgent string) (harness.Client, *bffv1.Tokens) {
				t.Helper()
				over := &http.Client{Transport: from{"203.0.113.1", userAgent}}
				response, err := s.ClientOver(over, "").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: harness.Password})
				if err != nil {
					t.Fatalf("Login: %v", err)
				}
				tokens := response.GetSignedIn().GetTokens()
				return s.ClientOver(over, tokens.GetAccessToken()), tokens
			}
			phone, phoneTokens := login("phone")
			_, laptopTokens := login("laptop")
			sessions := sessionsByAgent(t, phone)
			if len(sessions) != 3 || !sessions["phone"].GetCurrent() || sessions["laptop"].GetCurrent() {
				t.Fatalf("the sessions are %v, want three, the phone's the current one", sessions)
			}
			if got := sessions["laptop"]; got.GetIpAddress() != "127.0.0.1" || got.GetLastUsedTime() == nil || got.GetExpireTime() == nil {
				t.Errorf("the laptop's session is %v, want its address, last use and end", got)
			}
			if _, err := phone.Account.RevokeSession(t.Context(), &bffv1.RevokeSessionRequest{SessionId: sessions["laptop"].GetId()}); err != nil {
				t.Errorf("RevokeSession: %v", err)
			}
			wantEnded(t, s, "one is revoked", laptopTokens)
			others, err := phone.Account.RevokeOtherSessions(t.Context(), &bffv1.RevokeOtherSessionsRequest{})
			if err != nil || others.GetRevoked() != 1 {
				t.Errorf("RevokeOtherSessions: %v, %v; want one", others, err)
			}
			wantEnded(t, s, "the others are revoked", &bffv1.Tokens{AccessToken: ada.Access, RefreshToken: ada.Refresh})
			if sessions := sessionsByAgent(t, phone); len(sessions) != 1 {
				t.Errorf("the sessions are %v, want the phone's alone", sessions)
			}

			_, tabletTokens := login("tablet")
			id := ada.ID
			seen, err := admin.Users.ListUserSessions(t.Context(), &bffv1.ListUserSessionsRequest{UserId: id})
			if err != nil || len(seen.GetSessions()) != 2 || seen.GetSessions()[0].GetUserAgent() != "tablet" || seen.GetSessions()[0].GetCurrent() {
				t.Fatalf("ListUserSessions: %v, %v; want the tablet's first, and no current one", seen, err)
			}
			if _, err := admin.Users.RevokeUserSession(t.Context(), &bffv1.RevokeUserSessionRequest{UserId: id, SessionId: seen.GetSessions()[0].GetId()}); err != nil {
				t.Errorf("RevokeUserSession: %v", err)
			}
			wantEnded(t, s, "an administrator revokes one", tabletTokens)
			all, err := phone.Account.RevokeAllSessions(t.Context(), &bffv1.RevokeAllSessionsRequest{})
			if err != nil || all.GetRevoked() != 1 {
				t.Errorf("RevokeAllSessions: %v, %v; want one", all, err)
			}
			wantEnded(t, s, "all are revoked", phoneTokens)
			person, _ := login("person")
			wantAdministratorOnly(t, person, id)
		})
	}
}

// sessionsByAgent returns a client's own sessions by their user agents.
func sessionsByAgent(t *testing.T, c harness.Client) map[string]*bffv1.Session {
	t.Helper()
	response, err := c.Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
	if err != nil {
		t.Fatalf("ListSessions: %v", err)
	}
	byAgent := map[string]*bffv1.Session{}
	for _, session := range response.GetSessions() {
		byAgent[session.GetUserAgent()] = session
	}
	return byAgent
}

// wantEnded checks that a session has ended: its refresh token and its access token are
// refused.
func wantEnded(t *testing.T, s *harness.System, what string, tokens *bffv1.Tokens) {
	t.Helper()
	_, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: tokens.GetRefreshToken()})
	harness.WantReason(t, err, connect.CodeUnauthenticated, "SESSION_ENDED")
	harness.Eventually(t, 10*time.Second, what+": the access token is refused", func() error {
		_, err := s.Client(tokens.GetAccessToken()).Account.ListSessions(t.Context(), &bffv1.ListSessionsRequest{})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// wantAdministratorOnly checks that a client without the role is refused.
func wantAdministratorOnly(t *testing.T, person harness.Client, id string) {
	t.Helper()
	for procedure, ask := range map[string]func(harness.Client) error{
		"ListUserSessions": func(c harness.Client) error {
			_, err := c.Users.ListUserSessions(t.Context(), &bffv1.ListUserSessionsRequest{UserId: id})
			return err
		},
		"RevokeUserSession": func(c harness.Client) error {
			_, err := c.Users.RevokeUserSession(t.Context(), &bffv1.RevokeUserSessionRequest{UserId: id, SessionId: id})
			return err
		},
		"ListAuditEvents": func(c harness.Client) error {
			_, err := c.Users.ListAuditEvents(t.Context(), &bffv1.ListAuditEventsRequest{})
			return err
		},
	} {
		if err := ask(person); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s by somebody who is no administrator: %v, want permission_denied", procedure, err)
		}
	}
}

func TestTheAuditTellsAdministratorsAllAndPeopleWhatConcernsThem(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, harness.ThreeProcesses)
	ada := s.SignUp(t, "ada@example.com")
	admin := s.Admin(t).Client()
	id := ada.ID
	if _, err := s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "ada@example.com", Password: "wrong"}); err == nil {
		t.Error("a wrong password was accepted")
	}
	_, _ = s.Client("").Auth.Login(t.Context(), &bffv1.LoginRequest{Email: "nobody@example.com", Password: "wrong"})
	roles, err := admin.Users.SetUserRoles(t.Context(), &bffv1.SetUserRolesRequest{UserId: id, Roles: []string{"editor"}})
	if err != nil || roles.GetUser() == nil {
		t.Fatalf("SetUserRoles: %v", err)
	}
	got := map[string]*bffv1.AuditEvent{}
	all, err := admin.Users.ListAuditEvents(t.Context(), &bffv1.ListAuditEventsRequest{UserId: id})
	if err != nil {
		t.Fatalf("ListAuditEvents: %v", err)
	}
	for _, event := range all.GetEvents() {
		got[event.GetEvent()] = event
	}
	change := got["account.roles.change"]
	if len(all.GetEvents()) != 3 || change.GetActorId() == "" || change.GetActorId() == id || change.GetIpAddress() != "127.0.0.1" || change.GetUserAgent() == "" || change.GetRequestId() == "" {
		t.Errorf("an administrator sees %v, want three events, the change with all of its origin", all.GetEvents())
	}
	strangers, err := admin.Users.ListAuditEvents(t.Context(), &bffv1.ListAuditEventsRequest{Event: "session.", Outcome: "refused"})
	if err != nil || len(strangers.GetEvents()) != 2 || strangers.GetEvents()[0].GetUserId() != "" {
		t.Errorf("the failed sign-ins are %v (%v), want two, the last one nobody's", strangers.GetEvents(), err)
	}

	// The roles have changed since the token was made.
	refreshed, err := s.Client("").Auth.Refresh(t.Context(), &bffv1.RefreshRequest{RefreshToken: ada.Refresh})
	if err != nil {
		t.Fatal(err)
	}
	me := s.Client(refreshed.GetTokens().GetAccessToken())
	var own []*bffv1.AuditEvent
	for req := (&bffv1.ListMyAuditEventsRequest{PageSize: 2}); ; {
		page, err := me.Account.ListMyAuditEvents(t.Context(), req)
		if err != nil {
			t.Fatalf("ListMyAuditEvents: %v", err)
		}
		own = append(own, page.GetEvents()...)
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if len(own) != 3 {
		t.Fatalf("one sees %d events of oneself, want 3: %v", len(own), own)
	}
	change, failed := own[0], own[1]
	if change.GetEvent() != "account.roles.change" || change.GetActorId() == "" || change.GetIpAddress() != "" || change.GetUserAgent() != "" || change.GetRequestId() != "" || change.GetSessionId() != "" {
		t.Errorf("of an administrator's deed one sees %v, want who and what, and not from where", change)
	}
	if failed.GetEvent() != "session.login" || failed.GetOutcome() != "refused" || failed.GetIpAddress() != "127.0.0.1" || failed.GetUserAgent() == "" {
		t.Errorf("of a failed sign-in one sees %v, want from where it came", failed)
	}
}
