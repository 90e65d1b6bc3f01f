/* app/process - see process.h. */
#include "app/process.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file of /proc/PID, which is short; false when it cannot be read. */
static bool slurp(pid_t pid, const char *name, char *out, size_t room)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, room - 1, f) : 0;
    if (f)
        fclose(f);
    out[n] = '\0';
    return n > 0;
}

uint64_t process_rss(pid_t pid)
{
    char text[256];
    unsigned long long pages = 0;

    if (!slurp(pid, "statm", text, sizeof(text)) || sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

double process_cpu_s(pid_t pid)
{
    char text[1024];
    unsigned long user = 0, system = 0;

    if (!slurp(pid, "stat", text, sizeof(text)))
        return 0;
    /* The name stands in parentheses and may hold anything. */
    const char *rest = strrchr(text, ')');
    if (!rest ||
        sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}
