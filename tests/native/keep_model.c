// SPDX-License-Identifier: Apache-2.0
/*
 * A model test of native/keeper/{keep,table,channel}.c: random operations of kernel, guard, clock and worker,
 * hostile messages included, on a group that is a socket; beside it the plainest model of what is held.
 *   keep_model [SECONDS [SEED]]
 * It fails where a task is answered twice, not at all, too late, or not as the model says; where a worker is
 * told wrong things, or twice; where the table is not what it should be; where an fd is left; where it spins.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../native/keeper/channel.h"
#include "../../native/keeper/keep.h"

#define MS 1000000ull
#define OPERATIONS 400
#define NUMBERS (SLOTS + 64)
#define GRACE (901 * MS)

struct task {
	int live, denies, extended, told_by; /* told_by: which worker, 0: none */
	int32_t pid, seen;
	uint32_t id;
	ino_t file;
	uint64_t since, latest;
	size_t record, path;
	char byte; /* all of its record and path */
};

static struct keep k;
static struct task tasks[NUMBERS];
static int group, guard, worker, worker_number;
static unsigned seed, current, held;
static uint64_t virtual_time, messages, answers;
static struct { int valid; uint32_t id; int denied; } asked; /* the ANSWER that is being heard */
static int32_t owned;						   /* the process that is being made ours */

int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	(void)clock;
	time->tv_sec = (time_t)(virtual_time / 1000000000ull);
	time->tv_nsec = (long)(virtual_time % 1000000000ull);
	return 0;
}

void say(const char *name, const char *format, ...)
{
	(void)name;
	(void)format;
}

static void fail(const char *what, int number)
{
	fprintf(stderr, "seed %u: %s (number %d)\n", current, what, number);
	abort();
}

static unsigned any(unsigned below)
{
	return (unsigned)rand_r(&seed) % below;
}

static int open_fds(void)
{
	DIR *fds = opendir("/proc/self/fd");
	int count = 0;

	while (fds && readdir(fds))
		count++;
	closedir(fds);
	return count;
}

/* What the kernel hears. */

static void see_answers(void)
{
	struct fanotify_response response;

	while (recv(group, &response, sizeof(response), MSG_DONTWAIT) == sizeof(response)) {
		int number = response.fd, denied = response.response == FAN_DENY, expected;
		struct task *task = &tasks[number];

		if (!task->live)
			fail("answered twice, or never held", number);
		expected = asked.valid && asked.id == task->id ? asked.denied : task->denies;
		if (owned && owned == task->seen && !(asked.valid && asked.id == task->id))
			expected = 0;
		if (denied != expected)
			fail("answered otherwise", number);
		if (fcntl(number, F_GETFD) >= 0)
			fail("its fd is still open", number);
		task->live = 0;
		held--;
		answers++;
	}
}

static void see_table(void)
{
	uint32_t live = 0, unsent = 0;
	int before = -1;

	for (struct slot *slot = table_first(k.table); slot; slot = table_next(k.table, slot)) {
		int number = table_number(k.table, slot);
		struct task *task = &tasks[number];

		if (++live > held || !slot->live || slot->prev != before)
			fail("the table's list is broken", number);
		if (!task->live || task->id != table_id(k.table, number))
			fail("the table has what is not held", number);
		if (task->denies != slot->denies)
			fail("its deadline answers otherwise", number);
		if (virtual_time > task->latest || slot->due > task->latest)
			fail("held too long", number);
		unsent += !slot->sent;
		before = number;
	}
	if (live != held || k.table->live != held || k.table->unsent != unsent || k.table->newest != before)
		fail("the table counts wrong", (int)live);
	if (k.worker == ABSENT && live)
		fail("held, with nobody to ask", before);
}

static void see_time(void)
{
	int left = keep_due(&k);

	see_answers();
	for (struct slot *slot = table_first(k.table); slot; slot = table_next(k.table, slot))
		if (left < 0 || virtual_time + (uint64_t)left * MS > slot->due + 2 * MS)
			fail("it sleeps over a deadline", table_number(k.table, slot));
}

static void pump(void)
{
	struct epoll_event event;
	int rounds = 0;

	while (epoll_wait(k.epoll, &event, 1, 0) == 1) {
		if (event.data.fd == k.events)
			keep_hear(&k, event.events);
		if (++rounds > 300)
			fail("it spins", event.data.fd);
	}
	see_answers();
	asked.valid = 0;
	owned = 0;
	see_time();
	see_table();
	for (struct control message; recv(guard, &message, sizeof(message), MSG_DONTWAIT) > 0;)
		if (message.what != SILENT && message.what != CHECKED)
			fail("the guard is told nonsense", (int)message.what);
}

/* What the worker hears. */

static void check_hold(const struct to_worker *hold, const char *data, size_t size, int fd)
{
	int number = hold->id & 0xffff;
	struct task *task = &tasks[number];
	struct stat file;

	if (number >= SLOTS || size != sizeof(*hold) + hold->record + hold->path)
		fail("a hold that is none", number);
	if ((fd >= 0) != (k.kind == CONTAINERS))
		fail("a hold with the wrong fds", number);
	if (!task->live || task->id != hold->id)
		return; /* answered meanwhile */
	if (task->told_by == worker_number)
		fail("told twice", number);
	if (task->told_by && !(hold->flags & AGAIN)) /* one that was sent, and never read, is told again, too */
		fail("told as if for the first time", number);
	if (hold->pid != task->pid || hold->record != task->record || hold->path != task->path)
		fail("told wrong", number);
	for (size_t i = sizeof(*hold); i < size; i++)
		if (data[i] != task->byte)
			fail("told a wrong record", number);
	if (fd >= 0 && (fstat(fd, &file) || file.st_ino != task->file))
		fail("told with another file", number);
	task->told_by = worker_number;
}

static void worker_reads(void)
{
	static char data[16384];
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} rights;
	ssize_t size;

	for (;;) {
		struct iovec part = {data, sizeof(data)};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights,
					 .msg_controllen = sizeof(rights)};
		struct to_worker said;
		int fd = -1;

		if (worker < 0 || (size = recvmsg(worker, &message, MSG_DONTWAIT)) <= 0)
			return;
		if (CMSG_FIRSTHDR(&message))
			memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
		memcpy(&said, data, sizeof(said));
		if (said.type == HOLD)
			check_hold(&said, data, (size_t)size, fd);
		else if (said.type < HOLD || said.type > WELCOME || size != sizeof(said))
			fail("the worker is told nonsense", (int)said.type);
		if (fd >= 0)
			close(fd);
	}
}

/* Operations. */

static void arrive(void)
{
	static char data[SLOT_SIZE];
	struct task task = {.live = 1, .pid = (int32_t)any(50), .seen = (int32_t)any(50), .since = virtual_time};
	struct arrival arrival = {.mask = FAN_OPEN_EXEC_PERM, .pid = task.pid, .seen = task.seen, .record = data, .path = data};
	uint64_t longest = k.settings.hold > k.settings.hang ? k.settings.hold : k.settings.hang;
	int fd, number;
	struct stat file;

	keep_make_room(&k);
	see_answers();
	fd = memfd_create("event", MFD_CLOEXEC);
	number = any(100) ? fd : fcntl(fd, F_DUPFD_CLOEXEC, SLOTS - 5 + (int)any(20));
	if (number != fd)
		close(fd);
	if (number < 0 || fstat(number, &file))
		fail("no fd", number);
	task.file = file.st_ino;
	task.byte = (char)any(256);
	task.latest = task.since + longest + GRACE;
	arrival.number = number;
	arrival.record_size = task.record = any(4) ? any(100) : any(3200);
	arrival.path_size = task.path = any(4) ? any(100) : any(4096);
	memset(data, task.byte, sizeof(data));
	arrival.owed = any(4);
	task.denies = (arrival.owed & k.owed) && (k.settings.absent_denies || k.worker == PRESENT);
	held++;
	task.id = number < SLOTS ? table_id(k.table, number) : 0;
	tasks[number] = task;
	keep_arrived(&k, &arrival);
	see_answers();
	if (tasks[number].live && number >= SLOTS)
		fail("entered beyond the table", number);
}

static int some_task(void)
{
	struct slot *slot = table_first(k.table);

	for (unsigned skip = any(8); slot && skip; skip--)
		slot = table_next(k.table, slot);
	return slot ? table_number(k.table, slot) : -1;
}

static int worker_sends(const void *data, size_t size, int fds)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * 100)];
		struct cmsghdr align;
	} rights;
	struct iovec part = {(void *)(uintptr_t)data, size};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (fds) {
		memset(&rights, 0, sizeof(rights));
		message.msg_control = &rights;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds);
		CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds);
		for (int i = 0; i < fds; i++)
			memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)) + i * (int)sizeof(int), &worker, sizeof(int));
	}
	if (sendmsg(worker, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return 0;
	messages++;
	return 1;
}

/* The model does what one message says, and then the keeper does. */
static void speak(void)
{
	struct to_keeper said = {.ops = any(128), .id = any(1u << 31) * 2u + any(2), .response = any(4), .pid = (int32_t)any(120) - 60};
	int number = any(8) ? some_task() : -1;
	struct task *task = number < 0 ? NULL : &tasks[number];

	said.extend_ms = any(2) ? any(3000) : any(1u << 31) * 2u;
	said.settling = any(2);
	said.owed = any(4);
	if (task)
		said.id = task->id;
	else if (any(2))
		said.id = tasks[any(64)].id; /* answered long ago, most likely */
	if (!worker_sends(&said, sizeof(said), any(8) ? 0 : (int)any(100) + 1))
		return;
	number = said.id & 0xffff;
	task = number < SLOTS && tasks[number].live && tasks[number].id == said.id ? &tasks[number] : NULL;
	if (said.ops & MINE && said.pid > 0 && !keep_is_own(&k, said.pid))
		owned = said.pid;
	if (task && owned && owned == task->seen && !table_slot(k.table, number)->sent)
		task = NULL; /* let go before it is answered */
	if (task && said.ops & FLAG)
		task->denies = said.response == FAN_DENY;
	if (task && said.ops & EXTEND && !task->extended) {
		task->extended = 1;
		task->latest += 5000 * MS;
	}
	if (task && said.ops & ANSWER) {
		asked.valid = 1;
		asked.id = said.id;
		asked.denied = said.response == FAN_DENY;
	}
	pump();
}

static void babble(void)
{
	static char garbage[8192];
	size_t size = any(3) ? any(64) : any(sizeof(garbage));

	if (size == sizeof(struct to_keeper) || (size == 0 && any(20)))
		size++;
	for (size_t i = 0; i < size; i++)
		garbage[i] = (char)any(256);
	worker_sends(garbage, size, any(4) ? 0 : (int)any(100) + 1);
}

static void obey(uint32_t what, int32_t value, int fd)
{
	struct control control = {.what = what, .value = value};
	int silent = virtual_time - k.heard >= k.settings.hang / 2;

	if (what == OWN_PROCESS && value > 0 && !keep_is_own(&k, value))
		owned = value;
	keep_obey(&k, &control, fd);
	see_answers();
	if (what == ALONE && silent && k.worker == PRESENT && k.asked)
		fail("it waits for a worker that hangs", -1);
	owned = 0;
}

static void worker_comes(void)
{
	int ends[2];

	if (worker >= 0) {
		worker_reads();
		close(worker);
	}
	if (channel_pair(ends))
		fail("no socket", -1);
	if (!any(3)) /* one that is soon full */
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &(int){16384}, sizeof(int));
	worker = ends[1];
	worker_number++;
	obey(WORKER_EVENTS, 0, ends[0]);
}

static void worker_goes(void)
{
	if (worker >= 0)
		close(worker);
	worker = -1;
	pump();
}

static void operate(void)
{
	unsigned what = any(100);

	if (what < 35) {
		arrive();
	} else if (what < 70 && worker >= 0) {
		any(3) ? speak() : babble();
	} else if (what < 80) {
		worker_reads();
	} else if (what < 92) {
		virtual_time += any(10) ? any(50) * MS : any(6000) * MS;
	} else if (what < 94) {
		worker_comes();
	} else if (what < 95) {
		worker_goes();
	} else if (what < 96) {
		obey(WORKER_GONE, 0, -1);
	} else {
		obey(any(2) ? OWN_PROCESS : any(32), (int32_t)any(120) - 60, any(2) ? -1 : dup(2));
	}
	/* Time passes only together with a look at the deadlines. */
	see_time();
	pump();
}

static void begin(void)
{
	static const struct keep none;
	int ends[2];

	seed = current;
	k = none;
	k.name = "model";
	k.kind = any(2) ? COMMANDS : CONTAINERS;
	k.settings.hold = (100 + any(5000)) * MS;
	k.settings.hang = (100 + any(5000)) * MS;
	k.settings.replaced = (int)any(2);
	k.settings.absent_denies = (int)any(2);
	memset(tasks, 0, sizeof(tasks));
	held = 0;
	worker = -1;
	worker_number = 0;
	k.memory = table_create("model");
	if (k.memory < 0 || channel_pair(ends))
		fail("can't begin", errno);
	k.group = ends[0];
	group = ends[1];
	if (channel_pair(ends))
		fail("can't begin", errno);
	k.guard = ends[0];
	guard = ends[1];
	if (keep_open(&k))
		fail("can't begin", errno);
	if (any(2))
		k.most = 2 + any(20);
}

static void end(void)
{
	worker_goes();
	obey(WORKER_GONE, 0, -1);
	virtual_time += 60000 * MS;
	pump();
	if (held)
		fail("never answered", some_task());
	table_unmap(k.table);
	for (size_t i = 0; i < 5; i++)
		close((const int[]){k.group, group, k.guard, guard, k.memory}[i]);
	close(k.epoll);
}

int main(int count, char **words)
{
	double seconds = count > 1 ? atof(words[1]) : 3;
	struct rlimit files;
	clock_t until = (clock_t)(seconds * CLOCKS_PER_SEC);
	unsigned first = count > 2 ? (unsigned)atoi(words[2]) : 1;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max < NUMBERS + 64 ? files.rlim_max : NUMBERS + 64;
	setrlimit(RLIMIT_NOFILE, &files);
	virtual_time = 1000000 * MS;
	for (current = first; clock() < until; current++) {
		int before = open_fds();

		begin();
		for (int i = 0; i < OPERATIONS; i++)
			operate();
		end();
		if (open_fds() != before)
			fail("fds are left", open_fds() - before);
	}
	fprintf(stderr, "%u sequences, %lu messages, %lu answers: as the model says\n", current - first,
		(unsigned long)messages, (unsigned long)answers);
	return 0;
}
