/* web - see web.h. */
#include "web/web.h"

const struct web_file *web_file_find(struct span path)
{
    for (size_t i = 0; i < nweb_files; i++)
        if (span_eq_str(path, web_files[i].path))
            return &web_files[i];
    return NULL;
}
