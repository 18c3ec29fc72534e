/* Preloaded into adbd, which would listen on all interfaces and on vsock: keep it to loopback, refuse the rest. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    if (address->sa_family == AF_INET) {
        struct sockaddr_in inner = *(const struct sockaddr_in *)address;
        inner.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return real(fd, (const struct sockaddr *)&inner, sizeof inner);
    }
    if (address->sa_family == AF_INET6) {
        /* IPv4's loopback, as such a socket sees it: adbd listens on one for both. */
        static const unsigned char loopback[16] = {[10] = 0xff, 0xff, 127, 0, 0, 1};
        struct sockaddr_in6 inner = *(const struct sockaddr_in6 *)address;
        memcpy(&inner.sin6_addr, loopback, sizeof loopback);
        return real(fd, (const struct sockaddr *)&inner, sizeof inner);
    }
    if (address->sa_family == AF_UNIX)
        return real(fd, address, length);
    errno = EACCES;
    return -1;
}
