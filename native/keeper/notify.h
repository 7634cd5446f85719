/* SPDX-License-Identifier: Apache-2.0 */
/* sd_notify(3), without its library. Never waits. */
#ifndef KEEPER_NOTIFY_H
#define KEEPER_NOTIFY_H

#include <stdint.h>

void notify(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* ns between two signs of life that systemd waits for, halved; 0: it does not. */
uint64_t watchdog_interval(void);

#endif
