/* app/access_file - see access_file.h. */
#include "app/access_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int access_file_open(const char *path, struct err *err)
{
    int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, O_WRONLY | flags, 0640);

    if (fd < 0 && errno == ENXIO) /* a FIFO that nobody reads yet */
        fd = open(path, O_RDWR | flags, 0640);
    if (fd < 0)
        return err_set(err, 500, "cannot open %s for the access log (access_log.file): %s", path,
                       strerror(errno));
    return fd;
}
