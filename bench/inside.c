// SPDX-License-Identifier: Apache-2.0
// A container's program: prints when its first instructions ran and when it is about to exit
// (CLOCK_MONOTONIC, nanoseconds), and its process id in the container's terms.
//   inside [MILLISECONDS]    stays that long in between
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long long first = now();
	char line[64];

	if (argc > 1)
		usleep(atoi(argv[1]) * 1000);
	int size = snprintf(line, sizeof(line), "%lld %lld\n", first, now());
	_exit(write(1, line, size) != size);
}
