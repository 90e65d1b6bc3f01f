/*
 * app/process - what a process of ours takes, as /proc says.
 */
#pragma once
#include <stdint.h>
#include <sys/types.h>

/* Resident bytes; 0 when there is no such process. */
uint64_t process_rss(pid_t pid);
/* User and system time in seconds; 0 when there is no such process. */
double process_cpu_s(pid_t pid);
