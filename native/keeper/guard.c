// SPDX-License-Identifier: Apache-2.0
/*
 * startgate-keeper: the guard, parent of the door and the yard, and of the daemon's worker.
 *
 * It holds no task: the door and the yard do. It sees to it that they and a worker live: continues a door
 * that somebody stopped, throws away a yard that hangs, replaces a worker that dies or hangs. When it ends,
 * so do they, and the kernel lets go all that is held.
 *
 *   startgate-keeper --commands FD --containers FD [--table FD] [--queue FD] [--pending FD]
 *                    --hold MS --hang MS [--absent-denies]
 *                    --control FD --program PID | --worker FD,FD COMMAND...
 *
 * --control: the worker is whoever has the other end of that socket, as it is with `watch` and the library.
 * --worker: start it, again and again, with these fds: the daemon.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel.h"
#include "notify.h"
#include "upgrade.h"

#define READY_MAX 16
#define SECOND 1000000000ull
#define TICK (SECOND / 2)     /* between two looks at the yard */
#define REST_AFTER (10 * SECOND)
#define YARD_LIMIT SECOND     /* a yard that is silent for so long hangs */
#define STARVED_LIMIT (4 * SECOND) /* unless it gets no CPU */
#define MARK_LIMIT (2 * SECOND)	   /* that is how long a worker waits for a mark */
#define YARD_DEATHS_MAX 8
#define START_LIMIT (30 * SECOND)
#define STOP_LIMIT (5 * SECOND)
#define SETTLED (SECOND / 2)  /* a worker that dies sooner after it was ready: what it met may kill the next one */
#define PAUSE_MAX (30 * SECOND)
#define BETWEEN_LOOKS (SECOND / 20)
#define SILENCES_MAX 4	      /* a worker that is short of CPU is given time: */
#define SILENCE_ENDS 3	      /* hang limits after which a silence is none of those before */
#define DOOR_LIMIT (2 * SECOND) /* a door that is silent for so long is frozen: it holds up a host */

static const int IGNORED[] = {SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE, SIGQUIT, SIGUSR1, SIGALRM};
static const int HEARD[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2};

/* First what may hold somebody. */
static _Noreturn void leave(struct guard *g, int code)
{
	if (g->door.pid > 0)
		kill(g->door.pid, SIGKILL);
	if (g->yard.pid > 0)
		kill(g->yard.pid, SIGKILL);
	end_scribe(g);
	exit(code);
}

static void remember_alert(struct guard *g)
{
	eventfd_t count;

	eventfd_read(g->alert, &count);
	g->active = now();
	if (!g->tick)
		g->tick = g->active + TICK;
}

static void watch_fd(struct guard *g, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	epoll_ctl(g->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Before it is closed: a child may have a copy, and then closing alone ends nothing. */
void unwatch_fd(struct guard *g, int fd)
{
	epoll_ctl(g->epoll, EPOLL_CTL_DEL, fd, NULL);
}

/* The worker. */

static void tell_keeps(struct guard *g, uint32_t what, int32_t value)
{
	control_send(g->door.control, what, value, -1);
	control_send(g->yard.control, what, value, -1);
}

/* Make a socket between the worker and the door, or the yard; tell both. */
static int introduce(struct guard *g, const struct child *child, uint32_t to_child, uint32_t to_worker)
{
	int ends[2], failed;

	if (channel_pair(ends))
		return -1;
	failed = control_send(child->control, to_child, 0, ends[0]) || control_send(g->worker.control, to_worker, 0, ends[1]);
	close(ends[0]);
	close(ends[1]);
	return failed ? -1 : 0;
}

static int introduce_yard(struct guard *g)
{
	for (int i = 0; i < MARK_SOCKETS; i++)
		if (introduce(g, &g->yard, WORKER_MARKS, YARD_MARKS))
			return -1;
	return introduce(g, &g->yard, WORKER_EVENTS, YARD_EVENTS);
}

void introduce_new_yard(struct guard *g)
{
	watch_fd(g, g->yard.control);
	g->yard.table->resting = 1;
	if (g->worker.pid > 0)
		control_send(g->yard.control, OWN_PROCESS, g->worker.pid, -1);
	if (!g->introduced)
		return;
	control_send(g->worker.control, NEW_YARD, 0, -1);
	if (introduce_yard(g))
		say("keeper", "the worker can't be given the new yard: %s", strerror(errno));
}

static void on_hello(struct guard *g, int32_t protocol)
{
	if (protocol != KEEPER_PROTOCOL) {
		say("keeper", "the worker speaks protocol %d, not %d: are all files of one version?", protocol, KEEPER_PROTOCOL);
		close_worker(g);
		return;
	}
	g->introduced = 1;
	if (g->scribe > 0)
		control_send(g->worker.control, OUTPUT, 0, g->lines[1]);
	if (introduce(g, &g->door, WORKER_MARKS, DOOR_MARKS) || introduce_yard(g) ||
	    introduce(g, &g->door, WORKER_EVENTS, DOOR_EVENTS))
		say("keeper", "the worker can't be given its sockets: %s", strerror(errno));
}

static void on_ready(struct guard *g)
{
	g->state = WORKING;
	g->born = now();
	g->start_limit = 0;
	g->silences = 0;
	notify("READY=1\nMAINPID=%d\nSTATUS=worker %d", getpid(), g->worker.pid);
}

void close_worker(struct guard *g)
{
	if (g->worker.control >= 0) {
		unwatch_fd(g, g->worker.control);
		close(g->worker.control);
	}
	g->worker.control = -1;
	g->introduced = 0;
	tell_keeps(g, WORKER_GONE, 0);
}

/* It is not waited for: a thread of it may be stuck in the kernel. Its death is heard of, some day. */
static void replace_worker(struct guard *g, const char *why)
{
	if (g->worker.pid <= 0)
		return;
	kill(g->worker.pid, SIGKILL);
	tell_keeps(g, OWN_PROCESS, -g->worker.pid);
	g->worker.pid = 0;
	recover(g, why);
}

void recover(struct guard *g, const char *why)
{
	uint64_t at = now(), pause = 0;

	close_worker(g);
	g->failures = g->state == WORKING && at - g->born > SETTLED ? 0 : g->failures + 1;
	if (g->failures > 1) {
		pause = SECOND / 10 << (g->failures - 2 < 9 ? g->failures - 2 : 9);
		pause = pause < PAUSE_MAX ? pause : PAUSE_MAX;
	}
	g->state = STARTING;
	g->start_limit = 0;
	g->restart = at + pause;
	say("keeper", "%s; the next worker starts%s", why, pause ? " in a while: others failed before it" : "");
	notify("STATUS=no worker: %s", why);
}

static void on_silent(struct guard *g)
{
	uint64_t at = now();
	pid_t pid = g->command ? g->worker.pid : g->program_pid;

	if (pid <= 0)
		return;
	if (at - g->silent > SILENCE_ENDS * g->settings.hang)
		g->silences = 0;
	g->silent = at;
	g->silences++;
	look_at_cpu(&g->worker.look, pid);
	g->second_look = at + BETWEEN_LOOKS;
}

static void judge_silence(struct guard *g)
{
	g->second_look = 0;
	if (g->silences < SILENCES_MAX && is_starved(&g->worker.look))
		return;
	if (!g->command)
		tell_keeps(g, ALONE, 0);
	else if (g->worker.pid == g->worker.look.process)
		replace_worker(g, "the worker was killed: it gave no sign of life");
}

static void on_worker_says(struct guard *g)
{
	struct control message;
	int fd, got = channel_receive(g->worker.control, &message, sizeof(message), &fd);

	if (fd >= 0)
		close(fd);
	if (got < 0)
		return;
	if (got == 0 && !g->command)
		exit(0); /* the program that we kept for is gone: so are the groups, and the kernel lets all go */
	if (got == 0) { /* it is dying, most likely: that tells why */
		close_worker(g);
		g->start_limit = g->stopping ? 0 : now() + SECOND;
		return;
	}
	if (message.what == HELLO)
		on_hello(g, message.value);
	else if (message.what == READY)
		on_ready(g);
	else if (message.what == YARD_HANGS && now() - g->yard.born > MARK_LIMIT) /* else the one before is meant */
		replace_yard(g, "a mark was not answered");
}

static void start_worker(struct guard *g)
{
	int ends[2];

	g->restart = 0;
	if (g->renew)
		renew_keeps(g);
	if (channel_pair(ends)) {
		recover(g, "no worker can be started");
		return;
	}
	g->worker.pid = spawn_worker(g, ends[1]);
	close(ends[1]);
	g->worker.control = ends[0];
	watch_fd(g, ends[0]);
	if (g->worker.pid < 0) {
		recover(g, "no worker can be started");
		return;
	}
	g->start_limit = now() + START_LIMIT;
}

static void on_worker_death(struct guard *g, int status)
{
	char why[80];
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);

	tell_keeps(g, OWN_PROCESS, -g->worker.pid);
	g->worker.pid = 0;
	if (g->stopping)
		leave(g, 0);
	if (g->state == FIRST)
		leave(g, code ? code : 1);
	if (WIFEXITED(status))
		snprintf(why, sizeof(why), "the worker died (exit status %d)", WEXITSTATUS(status));
	else
		snprintf(why, sizeof(why), "the worker died (signal %d)", WTERMSIG(status));
	recover(g, why);
}

/* The door and the yard. */

static void on_keep_says(struct guard *g, struct child *child)
{
	struct control message;
	int fd, got = channel_receive(child->control, &message, sizeof(message), &fd);

	if (fd >= 0)
		close(fd);
	if (got <= 0)
		return; /* its death is told by SIGCHLD */
	child->asked = 0;
	if (message.what == SILENT)
		on_silent(g);
}

static void check(struct child *child, uint64_t at)
{
	if (!child->asked) {
		child->asked = at;
		look_at_cpu(&child->look, child->pid);
		control_send(child->control, CHECK, 0, -1);
	}
}

/* It is not starved, and does not answer: somebody froze it. Without it the kernel lets all go. */
static int door_hangs(const struct guard *g, uint64_t at)
{
	return g->door.asked && at - g->door.asked > DOOR_LIMIT && !is_starved(&g->door.look);
}

/* For how long does the yard neither answer us, or read what is there? */
static uint64_t yard_silence(struct guard *g, uint64_t at, int unread)
{
	uint64_t unanswered = g->yard.asked ? at - g->yard.asked : 0;

	if (!unread || !g->unread_since || g->yard_taken != g->yard.table->taken) {
		g->unread_since = unread ? at : 0;
		g->yard_taken = g->yard.table->taken;
	}
	if (!g->unread_since || at - g->unread_since < unanswered)
		return unanswered;
	return at - g->unread_since;
}

static void look(struct guard *g)
{
	uint64_t at = now(), silence;
	int unread = unread_events(g->containers);

	if (at - g->tick > TICK) /* we did not run ourselves: that is no silence of theirs */
		g->door.asked = g->yard.asked = g->unread_since = 0;
	g->tick = at + TICK;
	if (door_hangs(g, at)) {
		say("keeper", "the door hangs: it is killed");
		kill(g->door.pid, SIGKILL);
		g->door.asked = 0; /* frozen by cgroup v1 it does not die: say so now and then */
	}
	silence = yard_silence(g, at, unread);
	if (silence > STARVED_LIMIT || (silence > YARD_LIMIT && !is_starved(&g->yard.look))) {
		replace_yard(g, "it hangs");
		return;
	}
	if (g->door.table->live || g->yard.table->live || unread)
		g->active = at;
	if (at - g->active < REST_AFTER) {
		check(&g->door, at);
		check(&g->yard, at);
		return;
	}
	g->tick = 0;
	g->door.table->resting = g->yard.table->resting = 1;
}

static void on_keep_death(struct guard *g, struct child *child, int status)
{
	say_on(g->said[0]); /* its last words */
	if (child == &g->door) {
		say("keeper", "the door died (wait status %d): the kernel let all go", status);
		exit(1); /* whoever started us starts anew */
	}
	g->yard_deaths = now() - g->yard.born < SECOND ? g->yard_deaths + 1 : 0;
	if (g->yard_deaths == YARD_DEATHS_MAX) {
		say("keeper", "the yard dies again and again (wait status %d)", status);
		leave(g, 1);
	}
	replace_yard(g, "it died");
}

/* Signals. */

static void on_child(struct guard *g)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		struct child *keep = pid == g->door.pid ? &g->door : pid == g->yard.pid ? &g->yard : NULL;

		if (WIFSTOPPED(status)) {
			if (keep)
				kill(pid, SIGCONT); /* it may hold tasks */
		} else if (keep) {
			on_keep_death(g, keep, status);
		} else if (pid == g->worker.pid) {
			on_worker_death(g, status);
		} else if (pid == g->scribe) {
			start_scribe(g);
		} else {
			on_drained(g, pid);
		}
	}
}

static void stop(struct guard *g)
{
	notify("STOPPING=1");
	if (g->worker.pid <= 0)
		leave(g, 0);
	g->stopping = now() + STOP_LIMIT;
	g->restart = 0;
	kill(g->worker.pid, g->state == WORKING ? SIGINT : SIGTERM); /* SIGTERM is a death, as that of any other */
}

static void on_signal(struct guard *g)
{
	struct signalfd_siginfo signal;

	while (read(g->signals, &signal, sizeof(signal)) == sizeof(signal)) {
		if (signal.ssi_signo == SIGCHLD)
			on_child(g);
		else if (!g->command)
			continue; /* Ctrl-C is for the program that we keep for: we end with it */
		else if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT)
			stop(g);
		else if (signal.ssi_signo == SIGHUP && g->worker.pid > 0)
			kill(g->worker.pid, SIGHUP);
		else if (signal.ssi_signo == SIGUSR2 && !g->stopping)
			upgrade_guard(g);
	}
}

/* Time. */

static void watchdog(struct guard *g, uint64_t at)
{
	/* The door alone can hold up a host. That it answers what we asked last time is all that counts. */
	if (!g->door.asked || at - g->door.asked < g->watchdog_period / 2)
		notify("WATCHDOG=1");
	check(&g->door, at);
	g->watchdog = at + g->watchdog_period;
}

static void on_time(struct guard *g, uint64_t at)
{
	if (g->tick && g->tick <= at)
		look(g);
	if (g->second_look && g->second_look <= at)
		judge_silence(g);
	if (g->restart && g->restart <= at && !g->stopping)
		start_worker(g);
	if (g->start_limit && g->start_limit <= at) {
		if (g->state == FIRST) {
			say("keeper", "the worker was not ready in time");
			exit(1);
		}
		replace_worker(g, "the worker was killed: it was not ready in time");
	}
	if (g->stopping && g->stopping <= at)
		leave(g, 0);
	if (g->watchdog && g->watchdog <= at)
		watchdog(g, at);
	drain_old_groups(g, at);
}

static int timeout(const struct guard *g)
{
	const uint64_t times[] = {g->tick, g->second_look, g->restart, g->start_limit, g->stopping, g->watchdog, next_drain(g)};
	uint64_t at = now(), least = 0;

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		if (times[i] && (!least || times[i] < least))
			least = times[i];
	if (!least)
		return -1;
	return least > at ? (int)((least - at) / 1000000) + 1 : 0;
}

_Noreturn void guard_run(struct guard *g)
{
	struct epoll_event ready[READY_MAX];

	for (;;) {
		int count = epoll_wait(g->epoll, ready, READY_MAX, timeout(g));

		for (int i = 0; i < count; i++) {
			int fd = ready[i].data.fd;

			if (fd == g->signals)
				on_signal(g);
			else if (fd == g->alert)
				remember_alert(g);
			else if (fd == g->said[0])
				say_on(fd);
			else if (fd == g->program)
				exit(0); /* others may have its end of the socket: children that it forked */
			else if (fd == g->worker.control)
				on_worker_says(g);
			else if (fd == g->door.control)
				on_keep_says(g, &g->door);
			else if (fd == g->yard.control)
				on_keep_says(g, &g->yard);
		}
		on_time(g, now());
	}
}

static void listen_for_signals(struct guard *g)
{
	sigset_t heard;

	for (size_t i = 0; i < sizeof(IGNORED) / sizeof(IGNORED[0]); i++)
		signal(IGNORED[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored, it would keep from us who died */
	sigemptyset(&heard);
	for (size_t i = 0; i < sizeof(HEARD) / sizeof(HEARD[0]); i++)
		sigaddset(&heard, HEARD[i]);
	sigprocmask(SIG_BLOCK, &heard, NULL);
	g->signals = signalfd(-1, &heard, SFD_CLOEXEC | SFD_NONBLOCK);
	watch_fd(g, g->signals);
}

static void be_safe(void)
{
	struct rlimit files;

	write_oom_score(OOM_NEVER); /* without CAP_SYS_RESOURCE, as the init system said */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	umask(077);
	if (chdir("/"))
		say("keeper", "chdir: %s", strerror(errno));
}

static int begin(struct guard *g)
{
	g->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (g->alert < 0)
		g->alert = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	watch_fd(g, g->alert);
	listen_for_signals(g);
	if (!g->past && channel_pair(g->said))
		return -1;
	watch_fd(g, g->said[0]);
	if (!g->door.pid && (start_door(g) || start_yard(g)))
		return -1;
	if (g->command && !g->scribe && start_scribe(g))
		return -1;
	watch_fd(g, g->door.control);
	watch_fd(g, g->yard.control);
	g->door.table->resting = g->yard.table->resting = 1;
	if (g->worker.control >= 0)
		watch_fd(g, g->worker.control);
	else if (!g->past)
		start_worker(g);
	g->program_pid = g->program;
	if (g->program > 0 && (g->program = (int)syscall(__NR_pidfd_open, g->program, 0)) >= 0)
		watch_fd(g, g->program);
	g->watchdog_period = watchdog_interval();
	g->watchdog = g->watchdog_period ? now() : 0;
	stay_in_memory();
	return 0;
}

int main(int count, char **words)
{
	static struct guard guard;

	if (count > 2 && strcmp(words[1], AGAIN_OPTION) == 0)
		go_on(count - 2, words + 2);
	if (guard_parse(&guard, count, words)) {
		say("keeper", "it is started by `startgate` only");
		return 2;
	}
	if (!guard.command && !guard.past) { /* nobody's child, in no terminal: Ctrl-Z and Ctrl-C do not reach us */
		if (fork())
			_exit(0);
		setsid();
	}
	be_safe();
	prctl(PR_SET_NAME, "startgate-guard");
	if (begin(&guard)) {
		say("keeper", "can't start: %s", strerror(errno));
		return 1;
	}
	guard_run(&guard);
}
