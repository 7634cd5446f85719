// SPDX-License-Identifier: Apache-2.0
// Prints how many nanoseconds its own execve took, N times: the held task's own clock.
//   exec_delay N ARG...   forks N children; each executes this program again with ARG...
// "{}" in an argument becomes a number of its own for each child.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEFORE "EXEC_DELAY_BEFORE"

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static char *numbered(char *word, int n)
{
	char *hole = strstr(word, "{}"), *made = NULL;
	if (!hole || asprintf(&made, "%.*s%d-%d%s", (int)(hole - word), word, getppid(), n, hole + 2) < 0)
		return word;
	return made;
}

static void execute(char **argv, int n)
{
	char before[64], *environment[] = {before, NULL};
	for (int i = 1; argv[i]; i++)
		argv[i] = numbered(argv[i], n);
	usleep(2000); // the parent is asleep by then, and the listener too
	snprintf(before, sizeof(before), BEFORE "=%lld", now());
	execve(argv[0], argv, environment);
	_exit(127);
}

int main(int argc, char **argv)
{
	char *before = getenv(BEFORE);
	if (before) {
		printf("%lld\n", now() - atoll(before));
		return 0;
	}
	int count = argc > 1 ? atoi(argv[1]) : 0;
	if (count)
		argv[1] = argv[0]; // argv + 1 is what the children execute: ours, without N
	while (count-- > 0) {
		int status;
		if (fork() == 0)
			execute(argv + 1, count);
		if (wait(&status) < 0 || status)
			return 1;
	}
	return 0;
}
