// SPDX-License-Identifier: Apache-2.0
/* Starting the guard's children. fork(2), never vfork: the execve of a worker may be held by our own yard. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "door.h"
#include "guard.h"
#include "scribe.h"

#define WORKER_FDS_MAX 64
#define SLICE 100000 /* ns: the shortest that the kernel grants */
#define NICE (-15)

static const int UNHEARD[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2, SIGQUIT};

void keep_only(const int *kept, size_t count)
{
	unsigned from = 3;

	for (;;) {
		unsigned next = ~0u;

		for (size_t i = 0; i < count; i++)
			if (kept[i] >= (int)from && (unsigned)kept[i] < next)
				next = (unsigned)kept[i];
		if (next > from)
			syscall(__NR_close_range, from, next == ~0u ? next : next - 1, 0);
		if (next == ~0u)
			return;
		from = next + 1;
	}
}

void end_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
}

/*
 * Others wait for each of the few microseconds that they run: so they are not to wait for a CPU. A short slice
 * (EEVDF, Linux 6.12) asks for no more CPU, only for it sooner; niceness takes CAP_SYS_NICE. Each may fail.
 */
static void be_quick(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attributes = {.size = sizeof(attributes), .nice = getpriority(PRIO_PROCESS, 0), .runtime = SLICE};

	if (attributes.nice > NICE)
		attributes.nice = NICE;
	if (syscall(__NR_sched_setattr, 0, &attributes, 0)) {
		attributes.nice = getpriority(PRIO_PROCESS, 0);
		syscall(__NR_sched_setattr, 0, &attributes, 0);
	}
	errno = 0;
}

static void deaf_to_signals(void)
{
	sigset_t none;

	for (size_t i = 0; i < sizeof(UNHEARD) / sizeof(UNHEARD[0]); i++)
		signal(UNHEARD[i], SIG_IGN); /* SIGKILL and SIGSTOP are left; the guard continues who is stopped */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void be_keep(struct guard *g, struct keep *k, const struct records *records, pid_t parent)
{
	const int kept[] = {k->group, k->guard, k->memory, k->alert, records->table, records->queue, records->pending};

	end_with_parent(parent);
	say_to_guard(g->said[1]);
	keep_only(kept, sizeof(kept) / sizeof(kept[0]));
	deaf_to_signals();
	be_quick();
	if (g->door.table)
		table_unmap(g->door.table); /* each has its own alone */
	if (g->yard.table)
		table_unmap(g->yard.table);
	k->settings = g->settings;
	if (keep_open(k)) {
		say(k->name, "can't start: %s", strerror(errno));
		_exit(1);
	}
	if (k->kind == COMMANDS)
		door(k, records);
	yard(k, records);
}

static int start_keep(struct guard *g, struct child *child, struct keep *k, const struct records *records)
{
	pid_t parent = getpid();
	int ends[2];

	child->memory = table_create(k->name);
	if (child->memory < 0 || channel_pair(ends))
		return -1;
	child->table = table_map(child->memory);
	if (!child->table)
		return -1;
	k->guard = ends[1];
	k->memory = child->memory;
	k->alert = g->alert;
	child->pid = fork();
	if (child->pid == 0)
		be_keep(g, k, records, parent);
	close(ends[1]);
	child->control = ends[0];
	child->asked = 0;
	child->born = now();
	return child->pid < 0 ? -1 : 0;
}

int start_door(struct guard *g)
{
	static struct keep k = {.name = "door", .kind = COMMANDS};
	int failed;

	k.group = g->commands;
	failed = start_keep(g, &g->door, &k, &g->records);
	close(g->commands); /* the door alone has it: nothing that happens to us holds anybody */
	g->commands = -1;
	return failed;
}

int start_yard(struct guard *g)
{
	static struct keep k = {.name = "yard", .kind = CONTAINERS};
	static struct records records;

	records = (struct records){.table = -1, .queue = -1, .pending = g->records.pending};
	k.group = g->containers;
	return start_keep(g, &g->yard, &k, &records);
}

static _Noreturn void be_scribe(struct guard *g)
{
	deaf_to_signals();
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_NAME, "startgate-scribe");
	keep_only(g->lines, 1);
	fcntl(g->lines[0], F_SETFL, 0); /* it may wait */
	scribe(g->lines[0], g->torn);
	_exit(0);
}

int start_scribe(struct guard *g)
{
	if (!g->torn) {
		g->torn = mmap(NULL, sizeof(*g->torn), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (g->torn == MAP_FAILED || channel_pair(g->lines))
			return -1;
	}
	g->scribe = fork();
	if (g->scribe == 0)
		be_scribe(g);
	return g->scribe < 0 ? -1 : 0;
}

void end_scribe(struct guard *g)
{
	const struct timespec breath = {.tv_nsec = 10000000};

	if (g->scribe <= 0)
		return;
	close(g->lines[0]);
	close(g->lines[1]);
	for (int i = 0; i < 100 && waitpid(g->scribe, NULL, WNOHANG) == 0; i++)
		nanosleep(&breath, NULL);
	kill(g->scribe, SIGKILL);
}

/* Its execve may take long, or for ever: until then, too, it has nothing of ours but what is a worker's. */
static void inherit(char *numbers, int control, int go)
{
	int kept[WORKER_FDS_MAX + 2] = {control, go};
	size_t count = 2;

	for (char *at = strtok(numbers, ","); at && count < WORKER_FDS_MAX + 2; at = strtok(NULL, ","))
		kept[count++] = atoi(at);
	keep_only(kept, count);
	for (size_t i = 0; i < count; i++)
		if (kept[i] != go)
			fcntl(kept[i], F_SETFD, 0);
}

static void hear_signals_again(void)
{
	sigset_t late;

	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&late);
	sigaddset(&late, SIGHUP); /* it would be killed by it before it knows what to do */
	sigprocmask(SIG_SETMASK, &late, NULL);
}

static int read_oom_score(void)
{
	char text[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return atoi(text);
}

void write_oom_score(int score)
{
	char text[16];
	int size = snprintf(text, sizeof(text), "%d", score), fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, text, (size_t)size) < 0)
		errno = 0;
	close(fd);
}

static _Noreturn void be_worker(struct guard *g, int control, int go, pid_t parent)
{
	char text[16], byte;

	end_with_parent(parent);
	inherit(g->kept, control, go);
	snprintf(text, sizeof(text), "%d", control);
	setenv("STARTGATE_CONTROL", text, 1);
	hear_signals_again();
	write_oom_score(read_oom_score() + 100); /* it can be replaced: rather it than the door */
	if (read(go, &byte, 1) != 1)
		_exit(1);
	execv(g->command[0], g->command);
	_exit(127);
}

/*
 * Start a worker. Its execve may be held by the yard itself, where some container's program is Python, or the
 * dynamic loader: so the door and the yard know its pid first.
 */
pid_t spawn_worker(struct guard *g, int control)
{
	pid_t parent = getpid(), pid;
	int go[2];

	if (pipe2(go, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		be_worker(g, control, go[0], parent);
	}
	close(go[0]);
	if (pid > 0) {
		control_send(g->door.control, OWN_PROCESS, pid, -1);
		control_send(g->yard.control, OWN_PROCESS, pid, -1);
		if (write(go[1], "", 1) < 0)
			say("keeper", "a worker does not start: %s", strerror(errno));
	}
	close(go[1]);
	return pid;
}
