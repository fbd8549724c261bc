package operate

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"gatehouse/e2e/harness"
	"gatehouse/internal/pgtest"
)

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = person.Close() })
	var number, locked uint32
	for request, value := range map[uintptr]*uint32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &locked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, person.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

func TestAPersonAtATerminalIsAskedBeforeADatabaseIsShared(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int{"yes": 0, "y": harness.ExitUsage, "no": harness.ExitUsage, "": harness.ExitUsage} {
		t.Run("they answer "+answer, func(t *testing.T) {
			t.Parallel()
			database := pgtest.Empty(t)
			owner := pgtest.Connect(t, database)
			if _, err := owner.Exec(t.Context(), `CREATE TABLE public.orders (id integer)`); err != nil {
				t.Fatal(err)
			}
			before := textOf(t, owner, everything)
			person, program := openTerminal(t)
			cmd := exec.Command(os.Args[0], "schema", "apply")
			cmd.Env = []string{harness.AsGatehouse(), "DATABASE_URL=" + database, "GATEHOUSE_SECRET_KEY=" + harness.SecretKey}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			var screen harness.LockedBuffer
			go func() { _, _ = io.Copy(&screen, person) }()
			harness.Eventually(t, 30*time.Second, "the question", func() error {
				if said := screen.String(); !strings.Contains(said, "Type yes to go on") || !strings.Contains(said, "public.orders") {
					return fmt.Errorf("it said %q", said)
				}
				return nil
			})
			if _, err := io.WriteString(person, answer+"\n"); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Errorf("exit status %d, want %d; said %s", got, want, screen.String())
			}
			if after := textOf(t, owner, everything); (after == before) != (want != 0) {
				t.Errorf("after the answer %q the database is\n%s", answer, after)
			}
		})
	}
}
