/* Preloaded, this makes reads of a process fail with EIO: those of number
   FAIL_READ, from 1, to FAIL_LAST among all that its threads make of the file
   FAIL_FILE. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int reads;

ssize_t pread64(int fd, void *to, size_t octets, off64_t at)
{
	char link[64], name[PATH_MAX];
	const char *file = getenv("FAIL_FILE"), *first = getenv("FAIL_READ"), *last = getenv("FAIL_LAST");
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, name, sizeof name - 1);
	if (n > 0 && file && first && last) {
		name[n] = 0;
		if (strcmp(name, file) == 0) {
			int number = atomic_fetch_add(&reads, 1) + 1;
			if (number >= atoi(first) && number <= atoi(last)) {
				errno = EIO;
				return -1;
			}
		}
	}
	return syscall(SYS_pread64, fd, to, octets, at);
}
