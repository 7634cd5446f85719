// SPDX-License-Identifier: Apache-2.0
// Starts what is measured, and prints how long each took: nanoseconds, CLOCK_MONOTONIC.
//   load N spawn CMD ARG...                  N times: execute CMD, wait for its end
//   load N engine RUNTIME BUNDLE PID_FILE [REAL]
//       N times, as engines do: create, read the pid file, start, wait for the end, delete. A line has the
//       times of create + read + start together, create, read, start. With REAL, BUNDLE is made each time, a
//       directory with REAL's config.json, as engines do; PID_FILE may be in it.
// "{}" in a word becomes a number of its own each time. What is started writes to our stderr.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static char *numbered(const char *word, int n)
{
	const char *hole = strstr(word, "{}");
	char *made;

	if (!hole)
		return strdup(word);
	if (asprintf(&made, "%.*s%d-%d%s", (int)(hole - word), word, getpid(), n, hole + 2) < 0)
		fail("asprintf");
	return made;
}

static long long spawn(char **argv)
{
	long long before = now();
	int status;
	pid_t pid = vfork(); // as engines do; it returns once the execve succeeded

	if (pid == 0) {
		dup2(2, 1);
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		fail("vfork");
	if (status) {
		fprintf(stderr, "%s ended with wait status %d\n", argv[0], status);
		exit(1);
	}
	return now() - before;
}

static long long read_pid(const char *path, pid_t *pid)
{
	char text[32] = "";
	long long before;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail(path);
	before = now();
	if (read(fd, text, sizeof(text) - 1) <= 0)
		fail(path);
	before = now() - before;
	close(fd);
	*pid = atoi(text);
	return before;
}

static void engine(char *runtime, char *bundle, char *pid_file, char *id)
{
	char *create[] = {runtime, "create", "--bundle", bundle, "--pid-file", pid_file, id, NULL};
	char *start[] = {runtime, "start", id, NULL}, *delete[] = {runtime, "delete", id, NULL};
	long long before = now(), created, read, started, all;
	pid_t init;

	created = spawn(create);
	read = read_pid(pid_file, &init);
	started = spawn(start);
	all = now() - before;
	if (waitpid(init, NULL, 0) < 0) // ours: we are a subreaper, as shims are
		fail("the container's init");
	spawn(delete);
	printf("%lld %lld %lld %lld\n", all, created, read, started);
}

static char *config_of(const char *bundle)
{
	char *path;

	if (asprintf(&path, "%s/config.json", bundle) < 0)
		fail("asprintf");
	return path;
}

static void make_bundle(const char *bundle, const char *real)
{
	if (mkdir(bundle, 0700) || link(config_of(real), config_of(bundle)))
		fail(bundle);
}

static void remove_bundle(const char *bundle, const char *pid_file)
{
	if (unlink(pid_file) || unlink(config_of(bundle)) || rmdir(bundle))
		fail(bundle);
}

int main(int argc, char **argv)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (argc < 4)
		return 2;
	for (int n = 0; n < atoi(argv[1]); n++) {
		char *words[64] = {0};
		for (int i = 3; i < argc && i - 3 < 63; i++)
			words[i - 3] = numbered(argv[i], n);
		if (strcmp(argv[2], "engine") == 0 && words[3])
			make_bundle(words[1], words[3]);
		if (strcmp(argv[2], "engine") == 0)
			engine(words[0], words[1], words[2], numbered("bench-{}", n));
		else
			printf("%lld\n", spawn(words));
		if (strcmp(argv[2], "engine") == 0 && words[3])
			remove_bundle(words[1], words[2]);
		for (int i = 0; words[i]; i++)
			free(words[i]);
	}
	return 0;
}
