/* always - see always.h. */
#include "base/always.h"

#include <stdio.h>
#include <stdlib.h>

void always_failed(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "segue: broken invariant: %s (%s:%d, %s)\n", expr, file, line, func);
    abort();
}
