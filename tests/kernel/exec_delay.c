// SPDX-License-Identifier: Apache-2.0
// Prints how many nanoseconds its own execve took, N times: the held task's own clock.
//   exec_delay N    forks N children; each executes this program again with the time before
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
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
	if (argc == 3) {
		long long entered = now();
		printf("%lld\n", entered - atoll(argv[2]));
		return 0;
	}
	for (int n = atoi(argv[1]); n > 0; n--) {
		if (fork() == 0) {
			char before[32];
			usleep(2000); // the parent is asleep by then, and the listener too
			snprintf(before, sizeof(before), "%lld", now());
			execl(argv[0], argv[0], "--version", before, (char *)NULL);
			_exit(1);
		}
		wait(NULL);
	}
	return 0;
}
