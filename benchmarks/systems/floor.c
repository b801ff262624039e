/* The C floor: what it costs to copy bytes from socket to socket on epoll, and nothing else.
 *
 * ./floor PORT. The first line of a connection is "P <stream>" or "S <stream>", answered with "ok"; whatever a P sends
 * then, every S of the same stream gets, as recv gave it. What a viewer's socket does not take waits in a buffer of its
 * own; a viewer whose buffer is full is dropped. One thread, level-triggered.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FILES = 1 << 16, MAX_STREAMS = 4096, NAME = 64, READ = 256 * 1024, UNSENT = 64 * 1024 * 1024 };

struct stream {
    char name[NAME];
    int *viewers;
    int count, room;
};

struct connection {
    enum { FREE, NEW, CAMERA, VIEWER } kind;
    struct stream *stream;
    char line[NAME + 2];
    int line_length;
    char *unsent;
    size_t begin, end, room;
};

static struct connection connections[MAX_FILES];
static struct stream streams[MAX_STREAMS];
static int stream_count, poll_fd;

static void *checked(void *memory) {
    if (memory == NULL) {
        fputs("floor: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void watch(int fd, int operation, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(poll_fd, operation, fd, &event);
}

static struct stream *stream_of(const char *name) {
    for (int i = 0; i < stream_count; i++)
        if (strcmp(streams[i].name, name) == 0) return &streams[i];
    if (stream_count == MAX_STREAMS) return NULL;
    struct stream *made = &streams[stream_count++];
    strcpy(made->name, name);
    return made;
}

static void drop(int fd) {
    struct connection *gone = &connections[fd];
    if (gone->kind == VIEWER) {
        struct stream *stream = gone->stream;
        for (int i = 0; i < stream->count; i++)
            if (stream->viewers[i] == fd) stream->viewers[i--] = stream->viewers[--stream->count];
    }
    free(gone->unsent);
    memset(gone, 0, sizeof *gone);
    close(fd);
}

/* 0 when the viewer is to be dropped; it is not dropped here, for its stream is being walked. */
static int give(int fd, const char *bytes, size_t length) {
    struct connection *to = &connections[fd];
    if (to->begin == to->end) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return 0;
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        }
        if (length == 0) return 1;
        to->begin = to->end = 0;
        watch(fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    if (to->end + length > to->room) {
        memmove(to->unsent, to->unsent + to->begin, to->end - to->begin);
        to->end -= to->begin;
        to->begin = 0;
        if (to->end + length > UNSENT) return 0;
        if (to->end + length > to->room) {
            to->room = 2 * (to->end + length);
            to->unsent = checked(realloc(to->unsent, to->room));
        }
    }
    memcpy(to->unsent + to->end, bytes, length);
    to->end += length;
    return 1;
}

static void give_all(struct stream *stream, const char *bytes, size_t length) {
    for (int i = 0; i < stream->count; i++)
        if (!give(stream->viewers[i], bytes, length)) drop(stream->viewers[i--]);
}

static void give_rest(int fd) {
    struct connection *to = &connections[fd];
    ssize_t sent = send(fd, to->unsent + to->begin, to->end - to->begin, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) drop(fd);
        return;
    }
    to->begin += (size_t)sent;
    if (to->begin == to->end) watch(fd, EPOLL_CTL_MOD, EPOLLIN);
}

/* The first line; what came behind it in the same read belongs to the stream. */
static void introduced(int fd, const char *bytes, ssize_t length) {
    struct connection *from = &connections[fd];
    while (length > 0) {
        char c = *bytes++;
        length--;
        if (c != '\n') {
            if (from->line_length == (int)sizeof from->line - 1) {
                drop(fd);
                return;
            }
            from->line[from->line_length++] = c;
            continue;
        }
        from->line[from->line_length] = '\0';
        if (from->line_length < 3 || from->line_length > NAME || (from->stream = stream_of(from->line + 2)) == NULL) {
            drop(fd);
            return;
        }
        from->kind = from->line[0] == 'P' ? CAMERA : VIEWER;
        if (from->kind == VIEWER) {
            struct stream *stream = from->stream;
            if (stream->count == stream->room) {
                stream->room = 2 * stream->room + 8;
                stream->viewers = checked(realloc(stream->viewers, (size_t)stream->room * sizeof *stream->viewers));
            }
            stream->viewers[stream->count++] = fd;
        }
        send(fd, "ok\n", 3, MSG_NOSIGNAL);
        if (from->kind == CAMERA && length > 0) give_all(from->stream, bytes, (size_t)length);
        return;
    }
}

int main(int argc, char **argv) {
    static char buffer[READ];
    static struct epoll_event events[256];
    int yes = 1;
    if (argc != 2) {
        fputs("usage: floor PORT\n", stderr);
        return 2;
    }
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) < 0 || listen(listening, 1024) < 0) {
        perror("floor");
        return 1;
    }
    poll_fd = epoll_create1(0);
    watch(listening, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int count = epoll_wait(poll_fd, events, 256, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                int client = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
                if (client < 0) continue;
                if (client >= MAX_FILES) {
                    close(client);
                    continue;
                }
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                connections[client].kind = NEW;
                watch(client, EPOLL_CTL_ADD, EPOLLIN);
                continue;
            }
            struct connection *from = &connections[fd];
            if (from->kind == VIEWER && events[i].events & EPOLLOUT) give_rest(fd);
            if (from->kind == FREE || !(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
            ssize_t length = recv(fd, buffer, sizeof buffer, 0);
            if (length < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (length <= 0)
                drop(fd);
            else if (from->kind == NEW)
                introduced(fd, buffer, length);
            else if (from->kind == CAMERA)
                give_all(from->stream, buffer, (size_t)length);
        }
    }
}
