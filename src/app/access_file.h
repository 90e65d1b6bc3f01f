/*
 * app/access_file - the file of the access log.  The gateway has no disk: the
 * manager opens the file and hands its descriptor over.
 */
#pragma once
#include "base/err.h"

/* Opens for appending, made with mode 0640 if it is not there; a write to it never waits.
 * The descriptor is close-on-exec; -1 with a sentence. */
int access_file_open(const char *path, struct err *err) MUST_CHECK;
