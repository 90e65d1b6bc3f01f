/* names - see names.h. */
#include "names.h"

#include <stdio.h>
#include <string.h>

#include "verdict.h"

void names_init(struct names *n)
{
    pthread_mutex_init(&n->lock, NULL);
    atomic_init(&n->count, 0);
}

static int find(struct names *n, const char *name)
{
    int count = atomic_load_explicit(&n->count, memory_order_acquire);

    for (int i = 0; i < count; i++)
        if (strcmp(n->name[i], name) == 0)
            return i;
    return -1;
}

int names_index(struct names *n, const char *version)
{
    const char *name = version_short(version);

    int i = find(n, name);
    if (i >= 0)
        return i;

    pthread_mutex_lock(&n->lock);
    i = find(n, name);
    if (i < 0) {
        i = atomic_load(&n->count);
        if (i == NAMES_MAX) {
            i--;
        } else {
            snprintf(n->name[i], NAME_BYTES, "%s", i == NAMES_MAX - 1 ? "(others)" : name);
            atomic_store_explicit(&n->count, i + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&n->lock);
    return i;
}
