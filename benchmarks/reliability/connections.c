/* LD_PRELOAD: note in $CONNECTIONS_LOG each connection and look-up that leaves this machine.
 *
 * It sees libraries in C and Rust, which Python's socket module does not. Limits: a UDP socket that
 * is only connected sends nothing and is how a process asks for its own address; it is not noted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *where)
{
    char line[512];
    const char *path = getenv("CONNECTIONS_LOG");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (file < 0)
        return;
    int size = snprintf(line, sizeof line, "process %d: %s %s\n", getpid(), what, where);
    if (size > 0 && write(file, line, size < (int)sizeof line ? size : (int)sizeof line) < 0)
        _exit(99); /* a log that cannot be written proves nothing */
    close(file);
}

/* The address without its port: 4 bytes, also for IPv4 that is written as IPv6, or 16 bytes. */
static const unsigned char *bytes_of(const struct sockaddr *address, size_t *size)
{
    const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
    *size = 4;
    if (address->sa_family == AF_INET)
        return (const unsigned char *)&((const struct sockaddr_in *)address)->sin_addr;
    if (IN6_IS_ADDR_V4MAPPED(six))
        return six->s6_addr + 12;
    *size = 16;
    return six->s6_addr;
}

static int is_internet(const struct sockaddr *address)
{
    return address && (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

static int is_own(const struct sockaddr *address)
{
    static const unsigned char loopback[16] = {[15] = 1};
    size_t size, other;
    const unsigned char *bytes = bytes_of(address, &size), *mine;
    struct ifaddrs *all = NULL, *one;
    int own = size == 4 ? bytes[0] == 127 || bytes[0] == 0 : memcmp(bytes, loopback, 16) == 0;
    if (getifaddrs(&all) == 0) {
        for (one = all; one && !own; one = one->ifa_next)
            if (is_internet(one->ifa_addr)) {
                mine = bytes_of(one->ifa_addr, &other);
                own = other == size && memcmp(bytes, mine, size) == 0;
            }
        freeifaddrs(all);
    }
    return own;
}

int connect(int socket, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    int kind = 0;
    socklen_t size = sizeof kind;
    char text[INET6_ADDRSTRLEN] = "?";
    getsockopt(socket, SOL_SOCKET, SO_TYPE, &kind, &size);
    if (kind == SOCK_STREAM && is_internet(address) && !is_own(address)) {
        size_t bytes;
        const unsigned char *where = bytes_of(address, &bytes);
        inet_ntop(bytes == 4 ? AF_INET : AF_INET6, where, text, sizeof text);
        note("connects to", text);
    }
    return real(socket, address, length);
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    char own[256] = "", number[16];
    gethostname(own, sizeof own - 1);
    if (name && strcmp(name, "localhost") && strcmp(name, own) &&
        inet_pton(AF_INET, name, number) != 1 && inet_pton(AF_INET6, name, number) != 1)
        note("looks up", name);
    return real(name, service, hints, result);
}
