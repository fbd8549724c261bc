package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/auth"
	post "gatehouse/internal/mail"
	"gatehouse/internal/mailtest"
)

func TestMailWaitsForAServerThatIsAway(t *testing.T) {
	t.Parallel()
	h, server := newMailHouse(t, mailtest.Config{})
	server.Stop()
	h.run(t)
	id := h.enqueue(t, resetMail("ada@example.com"))
	h.untilTried(t, id, 1)
	server.Restart(t)
	h.due(t, id)
	h.untilSent(t, id)
	server.Wait(t, 1)
}

func TestAMailWhoseAnswerIsLostIsSentAgainWithTheSameMessageID(t *testing.T) {
	t.Parallel()
	var first atomic.Bool
	h, server := newMailHouse(t, mailtest.Config{Data: func(mailtest.Received) error {
		if first.CompareAndSwap(false, true) {
			return mailtest.ErrDie
		}
		return nil
	}})
	h.run(t)
	id := h.enqueue(t, resetMail("ada@example.com"))
	h.untilTried(t, id, 1)
	h.due(t, id)
	h.untilSent(t, id)
	got := server.Received()
	if len(got) != 2 || got[0].Header.Get("Message-Id") != got[1].Header.Get("Message-Id") || got[0].Header.Get("Message-Id") == "" {
		t.Errorf("the server has %d mails: %v", len(got), got)
	}
}

func TestAServerThatHangsHoldsUpNeitherOtherMailNorTheStop(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h, server := newMailHouse(t, mailtest.Config{Rcpt: func(to string) error {
		if strings.HasPrefix(to, "slow") {
			<-release
		}
		return nil
	}})
	t.Cleanup(func() { close(release) })
	stop := h.runUntil(t)
	slow := h.enqueue(t, resetMail("slow@example.com"))
	h.until(t, 1, "SELECT attempts FROM auth.mails WHERE id = $1", slow)
	for n := range 20 {
		h.enqueue(t, resetMail(fmt.Sprintf("quick%d@example.com", n)))
	}
	server.Wait(t, 20)
	h.until(t, 20, "SELECT count(*) FROM auth.mails WHERE sent_time IS NOT NULL")
	began := time.Now()
	stop()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	// Another copy may take it at once.
	if n := h.count(t, "SELECT count(*) FROM auth.mails WHERE id = $1 AND sent_time IS NULL AND next_attempt_time < now() + interval '2 seconds'", slow); n != 1 {
		t.Error("the mail that was under way isn't put back")
	}
}

func TestTwoCopiesSendEachMailOnce(t *testing.T) {
	t.Parallel()
	h, server := newMailHouse(t, mailtest.Config{})
	for n := range 100 {
		h.enqueue(t, resetMail(fmt.Sprintf("user%d@example.com", n)))
	}
	h.run(t)
	h.open(t, h.config)
	h.run(t)
	h.until(t, 100, "SELECT count(*) FROM auth.mails WHERE sent_time IS NOT NULL AND attempts = 1")
	to := map[string]bool{}
	for _, mail := range server.Received() {
		to[mail.To] = true
	}
	if n := len(server.Received()); n != 100 || len(to) != 100 {
		t.Errorf("the server got %d mails to %d people, want 100 to 100", n, len(to))
	}
}

func TestAMailThatADeadCopyTookIsSentByAnother(t *testing.T) {
	t.Parallel()
	h, server := newMailHouse(t, mailtest.Config{})
	id := h.enqueue(t, resetMail("ada@example.com"))
	h.exec(t, "UPDATE auth.mails SET attempts = 1, next_attempt_time = now() + interval '2 minutes'")
	h.run(t)
	h.untilSent(t, h.enqueue(t, resetMail("grace@example.com")))
	if n := len(server.Received()); n != 1 {
		t.Errorf("%d mails were sent, though one is another's for now", n)
	}
	h.due(t, id)
	h.untilSent(t, id)
}

// afterSend is a mailer that calls a function after each mail.
type afterSend struct {
	auth.Mailer
	do func()
}

func (m afterSend) Send(ctx context.Context, message post.Message) error {
	err := m.Mailer.Send(ctx, message)
	if err == nil {
		m.do()
	}
	return err
}

// The connections break between the mail's going and the noting of it.
func TestAMailIsSentAtLeastOnceWhenPostgresBreaksOff(t *testing.T) {
	t.Parallel()
	var h *house
	var once sync.Once
	broke := make(chan struct{})
	h, server := newMailHouse(t, mailtest.Config{}, func(c *auth.Config) {
		c.Mailer = afterSend{c.Mailer, func() {
			once.Do(func() {
				_, err := h.owner.Exec(context.Background(), `
					SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND usename <> current_user AND pid <> pg_backend_pid()`)
				if err != nil {
					t.Error(err)
				}
				close(broke)
			})
		}}
	})
	h.run(t)
	id := h.enqueue(t, resetMail("ada@example.com"))
	<-broke
	h.untilSent(t, id)
	server.Wait(t, 1)
	ids := map[string]bool{}
	for _, mail := range server.Received() {
		ids[mail.Header.Get("Message-Id")] = true
	}
	if len(ids) != 1 {
		t.Errorf("it came by the ids %v", ids)
	}
	// And the service goes on.
	h.untilSent(t, h.enqueue(t, resetMail("grace@example.com")))
}
