package testneed

import (
	"os"
	"syscall"
)

// MemoryDir returns the folder in which tests make the data folders of Postgres: in
// memory where there is plenty and programs may be run, because a cluster that lives for
// one test is not worth a disk's time. Elsewhere it is the folder for temporary files.
func MemoryDir() string {
	const memory, plenty, noexec = "/dev/shm", 2 << 30, 8
	var stat syscall.Statfs_t
	if err := syscall.Statfs(memory, &stat); err != nil || stat.Bavail*uint64(stat.Bsize) < plenty || stat.Flags&noexec != 0 {
		return os.TempDir()
	}
	return memory
}
