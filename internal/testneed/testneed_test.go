package testneed_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"gatehouse/internal/testneed"
)

// TestChild is what the test below runs in processes of its own.
func TestChild(t *testing.T) {
	if os.Getenv("GATEHOUSE_TEST_CHILD") == "" {
		t.Skip("runs in a child only")
	}
	testneed.Program(t, "no-such-program", "nor-this-one")
}

func TestALackSkipsAndFailsOnlyWhereAllIsRequired(t *testing.T) {
	t.Parallel()
	for require, want := range map[string]string{"": "--- SKIP", "all": "--- FAIL", "some": "--- FAIL"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), "GATEHOUSE_TEST_CHILD=1", "GATEHOUSE_TEST_REQUIRE="+require)
		said, _ := cmd.CombinedOutput()
		if !strings.Contains(string(said), want+": TestChild") || require != "some" && !strings.Contains(string(said), "no-such-program and nor-this-one") {
			t.Errorf("GATEHOUSE_TEST_REQUIRE=%s: want %s, got\n%s", require, want, said)
		}
	}
}

func TestTheFirstProgramThatIsThereIsFound(t *testing.T) {
	t.Parallel()
	want, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	if got := testneed.Program(t, "no-such-program", "go"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
