// SPDX-License-Identifier: Apache-2.0
/*
 * What native/keeper/sandbox.c lets the door and the yard do, on this kernel; needs no root.
 * It fails where a call is let through that should not be, or refused that is needed: by us, by a libc's start
 * after an upgrade, by its threads, by its abort(3).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../native/keeper/sandbox.h"
#include "../../native/keeper/say.h"

#define PAGE 65536 /* or less */

enum { NOBODY, DOOR, YARD, BOTH }; /* bits: who may */

struct attempt {
	const char *name;
	int may;
	long call, arguments[6];
};

#define TRY(may, call, ...) {#call "(" #__VA_ARGS__ ")", may, __NR_##call, {__VA_ARGS__}}

static const char *const NAMES[] = {"", "door", "yard"};

/* Fds are -1 and pointers NULL: what is let through fails otherwise than with ENOSYS, or does nothing. */
static const struct attempt ATTEMPTS[] = {
	TRY(NOBODY, socket, AF_INET, SOCK_STREAM), TRY(NOBODY, socket, AF_UNIX, SOCK_STREAM), TRY(NOBODY, socketpair, AF_UNIX),
	TRY(NOBODY, connect, -1), TRY(NOBODY, bind, -1), TRY(NOBODY, accept4, -1), TRY(NOBODY, setsockopt, -1),
	TRY(NOBODY, openat, AT_FDCWD, 0, O_RDONLY), TRY(NOBODY, openat, AT_FDCWD, 0, O_WRONLY), TRY(NOBODY, openat2, AT_FDCWD),
	TRY(NOBODY, open_by_handle_at, -1), TRY(NOBODY, name_to_handle_at, -1), TRY(NOBODY, memfd_create, 0),
	TRY(NOBODY, unlinkat, -1), TRY(NOBODY, renameat2, -1), TRY(NOBODY, linkat, -1), TRY(NOBODY, symlinkat, 0, -1),
	TRY(NOBODY, mkdirat, -1), TRY(NOBODY, mknodat, -1), TRY(NOBODY, fchmodat, -1), TRY(NOBODY, fchownat, -1),
	TRY(NOBODY, truncate, 0), TRY(NOBODY, ftruncate, -1), TRY(NOBODY, getdents64, -1), TRY(NOBODY, ioctl, -1),
	TRY(NOBODY, pread64, -1), TRY(NOBODY, pwrite64, -1), TRY(NOBODY, pwritev, -1), TRY(NOBODY, sendfile, -1),
	TRY(NOBODY, dup3, -1), TRY(NOBODY, pipe2, 0), TRY(NOBODY, splice, -1), TRY(NOBODY, setxattr, 0),
	TRY(NOBODY, mount, 0), TRY(NOBODY, umount2, 0), TRY(NOBODY, pivot_root, 0), TRY(NOBODY, chroot, 0),
	TRY(NOBODY, open_tree, -1), TRY(NOBODY, move_mount, -1), TRY(NOBODY, fsopen, 0),
	TRY(NOBODY, setns, -1), TRY(NOBODY, unshare, CLONE_NEWNS), TRY(NOBODY, clone3, 0),
	TRY(NOBODY, clone, CLONE_THREAD | CLONE_NEWNS), TRY(NOBODY, clone, CLONE_THREAD | CLONE_NEWUSER),
	TRY(NOBODY, ptrace, -1), TRY(NOBODY, process_vm_readv, -1), TRY(NOBODY, process_vm_writev, -1), TRY(NOBODY, kcmp, -1),
	TRY(NOBODY, kill, 0, 0), TRY(NOBODY, tkill, 1, 0), TRY(NOBODY, tgkill, 1, 1, 0), TRY(NOBODY, rt_sigqueueinfo, 1),
	TRY(NOBODY, pidfd_open, 1), TRY(NOBODY, pidfd_send_signal, -1), TRY(NOBODY, pidfd_getfd, -1),
	TRY(NOBODY, prlimit64, 1, RLIMIT_NOFILE), TRY(NOBODY, setpriority, PRIO_PROCESS, 1), TRY(NOBODY, sched_setattr, 0),
	TRY(NOBODY, execve, 0), TRY(NOBODY, execveat, -1, 0, 0, 0, 0),
	TRY(NOBODY, init_module, 0), TRY(NOBODY, finit_module, -1), TRY(NOBODY, delete_module, 0), TRY(NOBODY, kexec_load, 0),
	TRY(NOBODY, perf_event_open, 0), TRY(NOBODY, userfaultfd, 0), TRY(NOBODY, io_uring_setup, 0), TRY(NOBODY, keyctl, 0),
	TRY(NOBODY, add_key, 0), TRY(NOBODY, syslog, 0), TRY(NOBODY, reboot, 0), TRY(NOBODY, swapon, 0), TRY(NOBODY, acct, 0),
	TRY(NOBODY, setuid, 0), TRY(NOBODY, setresgid, 0), TRY(NOBODY, capset, 0), TRY(NOBODY, personality, 0xffffffff),
	TRY(NOBODY, fanotify_init, 0), TRY(NOBODY, fanotify_mark, -1, FAN_MARK_ADD | FAN_MARK_MOUNT),
	TRY(NOBODY, fanotify_mark, -1, FAN_MARK_ADD | FAN_MARK_FILESYSTEM),
	TRY(NOBODY, bpf, BPF_MAP_CREATE), TRY(NOBODY, bpf, BPF_PROG_LOAD), TRY(NOBODY, bpf, BPF_MAP_UPDATE_ELEM),
	TRY(NOBODY, bpf, BPF_MAP_GET_FD_BY_ID), TRY(NOBODY, bpf, BPF_OBJ_GET), TRY(NOBODY, bpf, BPF_LINK_CREATE),
	TRY(NOBODY, prctl, PR_SET_DUMPABLE, 1), TRY(NOBODY, prctl, PR_SET_PDEATHSIG, 0), TRY(NOBODY, prctl, PR_SET_MM, 0),
	TRY(NOBODY, fcntl, -1, F_DUPFD), TRY(NOBODY, fcntl, -1, F_SETFL), TRY(NOBODY, seccomp, SECCOMP_GET_ACTION_AVAIL),
	TRY(NOBODY, mmap, 0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	TRY(NOBODY, mprotect, 0, PAGE, PROT_WRITE | PROT_EXEC), TRY(NOBODY, pkey_mprotect, 0, PAGE, PROT_EXEC, -1),

	TRY(DOOR, bpf, BPF_MAP_LOOKUP_ELEM), TRY(DOOR, bpf, BPF_MAP_LOOKUP_AND_DELETE_ELEM),
	TRY(YARD, clone, CLONE_THREAD), TRY(YARD, timerfd_create, CLOCK_MONOTONIC), TRY(YARD, timerfd_settime, -1),
	TRY(YARD, ppoll, 0, -1),
#ifdef __NR_poll
	TRY(YARD, poll, 0, 0, 0),
#endif
	TRY(BOTH, bpf, BPF_PROG_TEST_RUN), TRY(BOTH, read, -1), TRY(BOTH, write, -1), TRY(BOTH, close, -1), TRY(BOTH, writev, -1),
	TRY(BOTH, recvmsg, -1), TRY(BOTH, sendmsg, -1), TRY(BOTH, sendto, -1), TRY(BOTH, epoll_pwait, -1), TRY(BOTH, epoll_ctl, -1),
	TRY(BOTH, readlinkat, -1), TRY(BOTH, fanotify_mark, -1, FAN_MARK_ADD), TRY(BOTH, fanotify_mark, -1, FAN_MARK_REMOVE),
	TRY(BOTH, execveat, -1, 0, 0, 0, AT_EMPTY_PATH), TRY(BOTH, fcntl, -1, F_SETFD), TRY(BOTH, prlimit64, 0, RLIMIT_NOFILE),
	TRY(BOTH, mlockall, 0), TRY(BOTH, clock_gettime, -1), TRY(BOTH, restart_syscall), TRY(BOTH, futex, 0, FUTEX_WAKE),
	TRY(BOTH, mprotect, 0, PAGE, PROT_READ | PROT_WRITE),
	TRY(BOTH, mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), TRY(BOTH, madvise, 0, 0, 0),
};

static const char *who = "test";
static int may_say; /* once */

static _Noreturn void fail(const char *what)
{
	char line[256];
	int size = snprintf(line, sizeof(line), "sandbox: %s: %s (%s)\n", who, what, strerror(errno));

	if (write(STDERR_FILENO, line, (size_t)size) < 0) /* dprintf(3) seeks */
		_exit(2);
	_exit(1);
}

void say(const char *name, const char *format, ...)
{
	(void)name;
	if (!may_say)
		fail(format);
	may_say = 0;
}

static void try_all(int kind)
{
	for (size_t i = 0; i < sizeof(ATTEMPTS) / sizeof(ATTEMPTS[0]); i++) {
		const struct attempt *attempt = &ATTEMPTS[i];
		const long *a = attempt->arguments;
		int refused = syscall(attempt->call, a[0], a[1], a[2], a[3], a[4], a[5]) == -1 && errno == ENOSYS;

		if (refused == !!(attempt->may & kind))
			fail(attempt->name);
	}
	if (syscall(__NR_tgkill, getpid(), gettid(), 0))
		fail("a signal to itself");
	if (fork() != -1 || errno != ENOSYS)
		fail("fork");
}

static void *run(void *argument)
{
	*(int *)argument = 1;
	return malloc(1); /* in an arena of its own */
}

static void try_threads(int kind)
{
	pthread_t thread;
	int ran = 0;

	if (pthread_create(&thread, NULL, run, &ran)) {
		if (kind == YARD)
			fail("no thread");
		return;
	}
	pthread_join(thread, NULL);
	if (kind != YARD || !ran)
		fail("threads");
}

/* Calls of another architecture have other numbers: of i386 20 is getpid, and of x32 39 is. */
static void try_other_calls(void)
{
#ifdef __x86_64__
	long result = 20;

	if (syscall(0x40000000 + 39) != -1 || errno != ENOSYS)
		fail("a call of x32");
	__asm__ volatile("int $0x80" : "+a"(result) : : "memory");
	if (result != -ENOSYS)
		fail("a call of i386");
#endif
}

/* Run `part` in a child; its wait status, and what it says last. */
static int in_child(void (*part)(int), int kind, char *last_words, size_t room)
{
	int ends[2], status;
	pid_t pid;
	ssize_t size;

	if (pipe(ends) || (pid = fork()) < 0)
		fail("no child");
	if (pid == 0) {
		who = NAMES[kind];
		if (last_words)
			dup2(ends[1], STDERR_FILENO);
		close(ends[0]);
		close(ends[1]);
		part(kind);
		_exit(0);
	}
	close(ends[1]);
	size = read(ends[0], last_words ? last_words : (char[1]){0}, last_words ? room - 1 : 1);
	if (last_words)
		last_words[size > 0 ? size : 0] = 0;
	close(ends[0]);
	waitpid(pid, &status, 0);
	return status;
}

static void enter(int kind)
{
	sandbox(NAMES[kind], kind == DOOR ? COMMANDS : CONTAINERS);
}

static void attempts(int kind)
{
	enter(kind);
	try_all(kind);
	try_threads(kind);
}

static void other_calls(int kind)
{
	enter(kind);
	try_other_calls();
}

static void stack_smashed(int kind)
{
	void __stack_chk_fail(void);

	enter(kind);
	__stack_chk_fail();
}

static int open_status(void)
{
	int fd = open("/proc/self/status", O_RDONLY);

	if (fd < 0)
		fail("status");
	return fd;
}

/* By a filter from before, as that of a systemd unit: it is said, and all goes on. */
static void refused(int kind)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_seccomp, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		fail("no filter from before");
	may_say = 1;
	enter(kind);
	if (may_say || getenv("STARTGATE_SANDBOX"))
		fail("a filter that is refused");
	if (close(open_status()))
		fail("it does not go on");
}

static long field(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? strtol(at + strlen(name), NULL, 16) : -1;
}

/* It was opened before the filter was placed. */
static void read_status(int fd, char *text, size_t room)
{
	ssize_t size = read(fd, text, room - 1);

	if (size <= 0)
		fail("status");
	text[size] = 0;
	close(fd);
}

/* As an upgrade does it. Another version's filter comes on top of the inherited one; the same one does not. */
static void execute(int kind, const char *version)
{
	char before[4096], words[4][24];
	char *command[] = {"sandbox_check", words[0], words[1], words[2], words[3], NULL};
	int program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), status = open_status();

	read_status(open_status(), before, sizeof(before));
	enter(kind);
	if (version)
		setenv("STARTGATE_SANDBOX", version, 1);
	snprintf(words[0], sizeof(words[0]), "%d", kind);
	snprintf(words[1], sizeof(words[1]), "%d", status);
	snprintf(words[2], sizeof(words[2]), "%ld", field(before, "CapEff:"));
	snprintf(words[3], sizeof(words[3]), "%ld", field(before, "Seccomp_filters:") + (version ? 2 : 1));
	fexecve(program, command, environ);
	fail("an upgrade");
}

static void upgraded(int kind)
{
	execute(kind, NULL);
}

static void upgraded_to_another(int kind)
{
	execute(kind, "another");
}

static _Noreturn void again(char **words)
{
	int kind = atoi(words[0]);
	char after[4096];

	who = NAMES[kind];
	enter(kind);
	read_status(atoi(words[1]), after, sizeof(after));
	if (field(after, "Seccomp:") != 2 || field(after, "NoNewPrivs:") != 1)
		fail("no filter after an upgrade");
	if (field(after, "CapEff:") != atol(words[2]))
		fail("an upgrade takes capabilities away");
	if (field(after, "Seccomp_filters:") != -1 && field(after, "Seccomp_filters:") != atol(words[3]))
		fail("the number of filters"); /* -1: before Linux 5.9 */
	try_all(kind);
	try_threads(kind);
	_exit(0);
}

int main(int count, char **words)
{
	char last_words[256];

	if (count == 5)
		again(words + 1);
	for (int kind = DOOR; kind <= YARD; kind++) {
		int status = in_child(other_calls, kind, NULL, 0);

		if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)) /* a kernel without i386's */
			return 1;
		if (in_child(attempts, kind, NULL, 0) || in_child(upgraded, kind, NULL, 0) ||
		    in_child(upgraded_to_another, kind, NULL, 0) || in_child(refused, kind, NULL, 0))
			return 1;
		status = in_child(stack_smashed, kind, last_words, sizeof(last_words));
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(last_words, "stack smashing"))
			fail("abort(3)");
	}
	fprintf(stderr, "sandbox: %zu calls are refused or let through as they should be\n", sizeof(ATTEMPTS) / sizeof(ATTEMPTS[0]));
	return 0;
}
