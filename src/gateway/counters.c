/* gateway/counters - see counters.h. */
#include "gateway/counters.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t replica_row_in_flight(const struct replica_row *r)
{
    /* Ends are read before starts: a row in use may look busier than it is, never idler. */
    uint64_t ended = counter_read(&r->finished) + counter_read(&r->failed) +
                     counter_read(&r->truncated) + counter_read(&r->cancelled) +
                     counter_read(&r->retried);
    atomic_thread_fence(memory_order_acquire);
    uint64_t begun = counter_read(&r->started) + counter_read(&r->pinned);

    return begun > ended ? begun - ended : 0;
}

int counters_create(struct err *err)
{
    int fd = memfd_create("segue-counters", MFD_CLOEXEC);
    uint64_t version = COUNTERS_VERSION;

    if (fd < 0 || ftruncate(fd, sizeof(struct counters)) < 0 ||
        pwrite(fd, &version, sizeof(version), 0) != sizeof(version)) {
        err_set(err, 500, "cannot make the counters segment: %s", strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

struct counters *counters_map(int fd, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size != (off_t)sizeof(struct counters)) {
        err_set(err, 500, "the counters segment does not have the size of this version of segue");
        return NULL;
    }
    struct counters *c =
        mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (c == MAP_FAILED) {
        err_set(err, 500, "cannot map the counters segment: %s", strerror(errno));
        return NULL;
    }
    if (c->version != COUNTERS_VERSION) {
        err_set(err, 500, "the counters segment has layout %llu, this segue needs %d",
                (unsigned long long)c->version, COUNTERS_VERSION);
        counters_unmap(c);
        return NULL;
    }
    return c;
}

void counters_unmap(struct counters *c)
{
    if (c)
        munmap(c, sizeof(*c));
}

void histogram_add(struct histogram *h, uint64_t us)
{
    /* The base-2 logarithm's whole part, and a quarter octave by comparing with
     * 2^(1/4), 2^(1/2), 2^(3/4) in 1/65536: no floating point on the way of a request. */
    static const uint32_t quarter[] = {77936, 92682, 110218};
    unsigned bucket = 0;

    if (us >= HISTOGRAM_FIRST_US) {
        unsigned octave = 63 - (unsigned)__builtin_clzll(us / HISTOGRAM_FIRST_US);
        uint64_t base = (uint64_t)HISTOGRAM_FIRST_US << octave;
        bucket = octave * 4;
        for (int i = 0; i < 3; i++)
            bucket += us * 65536 >= base * quarter[i];
    }
    if (bucket >= HISTOGRAM_BUCKETS)
        bucket = HISTOGRAM_BUCKETS - 1;
    counter_add(&h->buckets[bucket], 1);
    counter_add(&h->sum_us, us);
}

uint64_t histogram_bound_us(unsigned bucket)
{
    static const uint32_t quarter[] = {77936, 92682, 110218, 131072};

    if (bucket >= HISTOGRAM_BUCKETS - 1)
        return UINT64_MAX;
    return ((uint64_t)HISTOGRAM_FIRST_US << bucket / 4) * quarter[bucket % 4] / 65536;
}

/* Reading a row that was never written would make the kernel give it memory. */
uint64_t counters_settle(struct counters *c)
{
    uint64_t lost = 0;

    for (size_t slot = 0; slot < counter_read(&c->nslots); slot++) {
        for (size_t w = 0; w < COUNTERS_WORKERS; w++) {
            struct replica_row *r = &c->replicas[slot][w];
            uint64_t open = replica_row_in_flight(r);
            if (open == 0)
                continue;
            counter_add(&r->truncated, open);
            lost += open;
        }
    }
    for (size_t w = 0; w < COUNTERS_WORKERS; w++) {
        struct worker_row *r = &c->workers[w];
        counter_add(&r->unanswered, counter_read(&r->requests) + counter_read(&r->rejected) -
                                        counter_read(&r->answered) - counter_read(&r->unanswered));
        counter_add(&r->closed, counter_read(&r->opened) - counter_read(&r->closed));
        counter_add(&r->unheld, counter_read(&r->held_total) - counter_read(&r->unheld));
    }
    return lost;
}
