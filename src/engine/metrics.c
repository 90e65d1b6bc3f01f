/* metrics - see metrics.h. */
#include "engine/metrics.h"

#include <inttypes.h>

void metrics_write(const struct metrics *m, struct buf *out)
{
#define X(member, type, name, help)                                                             \
    buf_addf(out, "# HELP " name " " help "\n# TYPE " name " " type "\n" name " %" PRIu64 "\n", \
             metric_get(&m->member));
    METRICS(X)
#undef X
}
