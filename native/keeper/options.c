// SPDX-License-Identifier: Apache-2.0
/* The guard's command line; and its next version, which goes on where it was. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel.h"
#include "guard.h"
#include "notify.h"

#define MS 1000000ull
#define PAST "STARTGATE_PAST"
#define PAST_WORDS 19

struct option {
	const char *name;
	int *number;
	uint64_t *ms;
};

static int parse_option(struct guard *g, char **words)
{
	const struct option options[] = {
		{"--commands", &g->commands, NULL},	  {"--containers", &g->containers, NULL},
		{"--table", &g->records.table, NULL},	  {"--queue", &g->records.queue, NULL},
		{"--pending", &g->records.pending, NULL}, {"--control", &g->worker.control, NULL},
		{"--program", &g->program, NULL},	  {"--hold", NULL, &g->settings.hold},
		{"--hang", NULL, &g->settings.hang},
	};

	for (size_t i = 0; words[1] && i < sizeof(options) / sizeof(options[0]); i++) {
		if (strcmp(words[0], options[i].name))
			continue;
		if (options[i].number)
			*options[i].number = atoi(words[1]);
		else
			*options[i].ms = strtoull(words[1], NULL, 10) * MS;
		return 2;
	}
	if (strcmp(words[0], "--absent-denies") == 0) {
		g->settings.absent_denies = 1;
		return 1;
	}
	return 0;
}

/* Nothing is for a child that is not told so. */
static void close_on_exec(void)
{
	for (int fd = 3; fd < 256; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int layout = LAYOUT;

static void past_words(struct guard *g, int **places)
{
	int *const all[PAST_WORDS] = {
		&g->door.pid, &g->door.control, &g->door.memory, &g->yard.pid, &g->yard.control, &g->yard.memory,
		&g->worker.pid, &g->worker.control, &g->containers, &g->alert, &g->failures, &g->introduced,
		&g->records.pending, &g->scribe, &g->lines[0],
		&g->lines[1], &g->said[0], &g->said[1], &layout,
	};

	memcpy(places, all, sizeof(all));
}

static int restore(struct guard *g, char *text)
{
	int *places[PAST_WORDS];
	int at = 0;

	past_words(g, places);
	for (char *word = strtok(text, ","); word && at < PAST_WORDS; word = strtok(NULL, ","))
		*places[at++] = atoi(word);
	unsetenv(PAST);
	g->torn = mmap(NULL, sizeof(*g->torn), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	g->past = g->renew = 1;
	g->active = now(); /* does the yard go on? */
	g->tick = g->active + 500 * MS;
	g->commands = -1;
	g->state = WORKING;
	if (at == PAST_WORDS && layout == LAYOUT) {
		g->door.table = table_map(g->door.memory);
		g->yard.table = table_map(g->yard.memory);
	}
	if (!g->door.table || !g->yard.table) {
		say("keeper", "this version can't go on with what another one holds: all is let go");
		exit(1); /* the door ends with us */
	}
	say("keeper", "upgraded: the next worker starts");
	if (g->worker.pid > 0) { /* its version is old, too. What it has not done is the next one's, as after any death */
		kill(g->worker.pid, SIGKILL);
		g->start_limit = now() + 1000 * MS;
	} else {
		g->restart = now();
	}
	return 0;
}

int guard_parse(struct guard *g, int count, char **words)
{
	int used = 0;
	char *past = getenv(PAST);

	g->words = words;
	g->commands = g->containers = g->program = g->alert = -1;
	g->records.table = g->records.queue = g->records.pending = -1;
	g->door.control = g->yard.control = g->worker.control = -1;
	for (int i = 0; i < OLD_MAX; i++)
		g->old[i].group = -1;
	close_on_exec();
	for (int i = 1; i < count; i += used) {
		if (strcmp(words[i], "--worker") == 0 && i + 2 < count) {
			g->kept = words[i + 1];
			g->command = words + i + 2;
			g->settings.replaced = 1;
			break;
		}
		used = parse_option(g, words + i);
		if (!used)
			return -1;
	}
	if (past)
		return restore(g, past);
	return g->commands < 0 || g->containers < 0 || !g->settings.hold || !g->settings.hang ||
			       (!g->command && g->worker.control < 0)
		       ? -1
		       : 0;
}

static void tell_past(struct guard *g)
{
	const int fds[] = {g->door.control, g->door.memory, g->yard.control, g->yard.memory,
			   g->worker.control, g->containers, g->alert, g->records.pending,
			   g->lines[0], g->lines[1], g->said[0], g->said[1]};
	int *places[PAST_WORDS];
	char text[PAST_WORDS * 12] = "";
	size_t size = 0;

	past_words(g, places);
	for (int i = 0; i < PAST_WORDS; i++)
		size += (size_t)snprintf(text + size, sizeof(text) - size, "%d,", *places[i]);
	setenv(PAST, text, 1);
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			fcntl(fds[i], F_SETFD, 0);
	for (char *at = g->kept; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		fcntl(atoi(at), F_SETFD, 0);
}

/*
 * Become what is installed now, in place: the pid, the groups and all holds stay. Pending signals do, too:
 * they are blocked, and execve keeps that.
 */
void upgrade_guard(struct guard *g)
{
	if (next_drain(g)) {
		say("keeper", "not upgraded: a yard was thrown away just now; try again in some seconds");
		return;
	}
	tell_past(g);
	execv(g->words[0], g->words);
	unsetenv(PAST);
	close_on_exec();
	say("keeper", "not upgraded: %s: %s", g->words[0], strerror(errno));
}

void renew_keeps(struct guard *g)
{
	int program = open(g->words[0], O_RDONLY | O_CLOEXEC);

	g->renew = 0;
	if (program < 0) {
		say("keeper", "the door and the yard are not upgraded: %s: %s", g->words[0], strerror(errno));
		return;
	}
	control_send(g->door.control, UPGRADE, 0, program);
	control_send(g->yard.control, UPGRADE, 0, program);
	close(program);
}
