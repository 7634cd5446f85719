// SPDX-License-Identifier: Apache-2.0
// Copies lines from stdin to stdout, each behind the time it came (CLOCK_MONOTONIC, nanoseconds).
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
	static char data[1 << 16];
	int fresh = 1;
	ssize_t size;

	while ((size = read(0, data, sizeof(data))) > 0) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		for (char *at = data, *end = data + size; at < end;) {
			char *line = memchr(at, '\n', end - at), *next = line ? line + 1 : end;
			if (fresh)
				printf("%lld ", t.tv_sec * 1000000000LL + t.tv_nsec);
			fwrite(at, 1, next - at, stdout);
			fresh = line != NULL;
			at = next;
		}
		fflush(stdout);
	}
	return 0;
}
