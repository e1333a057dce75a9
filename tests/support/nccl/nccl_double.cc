// A double of NCCL's library: the functions that the transport opens, over memory of the host and a socket between the two ends
// of a communicator, which may be of one process or two. As NCCL's non-blocking communicators it answers "in progress" first; a
// send is done when the other end has taken it; operations of a pair match in their order. Its streams are StreamDouble.
// What NCCL would not bear ends the process: a call on a communicator that is in progress or gone, or a receive of
// another size than its send's.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "tests/support/stream_double.h"

namespace {

enum Status { kSuccess = 0, kSystemError = 2, kInvalidArgument = 4, kRemoteError = 6, kInProgress = 7 };
enum Setting { kDelay, kNeverJoins, kRefusesToJoin, kStallsAfter, kFailsAfter, kFlips, kSettings };

std::atomic<int> settings[kSettings] = {0, 0, 0, -1, -1, 0};
std::atomic<int> pages = 0;  // since a setting was made

[[noreturn]] void misuse(const char* what) {
  std::fprintf(stderr, "nccl double: %s\n", what);
  std::abort();
}

struct UniqueId {
  char internal[128];
};

struct Comm {
  int fd = -1;
  std::atomic<int> state = kInProgress;
  std::atomic<int> polls_left = 0;  // that a call says "in progress" for
  std::atomic<bool> aborted = false;
  std::atomic<int> operations = 0;  // asked for, not done
  std::thread joining;
};

std::mutex mutex;  // of the three
std::map<std::string, int> listeners;  // by name
std::set<Comm*> comms;
int last_name = 0;

sockaddr_un address_of(const std::string& name, socklen_t& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;  // an abstract name: its first byte is 0
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

bool move_all(int fd, std::byte* bytes, size_t size, bool out) {
  while (size > 0) {
    const ssize_t moved = out ? ::send(fd, bytes, size, MSG_NOSIGNAL) : ::recv(fd, bytes, size, 0);
    if (moved <= 0) return false;
    bytes += moved;
    size -= static_cast<size_t>(moved);
  }
  return true;
}

void sleep_unless(const std::atomic<bool>& aborted, const std::function<bool()>& until) {
  while (!aborted && !until()) std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void join(Comm* comm, std::string name, int rank) {
  sleep_unless(comm->aborted, [] { return settings[kNeverJoins] == 0; });
  if (comm->aborted) return;
  int fd = -1;
  if (rank == 0) {
    int listener = -1;
    {
      const std::lock_guard lock(mutex);
      listener = listeners.at(name);
      listeners.erase(name);
    }
    const timeval step{.tv_sec = 0, .tv_usec = 1000};
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof step);
    while (fd < 0 && !comm->aborted) fd = ::accept(listener, nullptr, nullptr);
    ::close(listener);
  } else {
    socklen_t length = 0;
    const sockaddr_un address = address_of(name, length);
    const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(made, reinterpret_cast<const sockaddr*>(&address), length) == 0) {
      fd = made;
    } else {
      ::close(made);
    }
  }
  comm->fd = fd;
  if (!comm->aborted) comm->state = fd < 0 ? kSystemError : kSuccess;
}

Comm* usable(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  const std::lock_guard lock(mutex);
  if (!comms.contains(comm)) misuse("a communicator is used that has been aborted");
  if (comm->state == kInProgress || comm->polls_left > 0) misuse("an operation on a communicator that is not ready");
  return comm;
}

// One page, on the stream's thread.
void move_page(Comm* comm, std::byte* page, size_t count, bool out) {
  const int number = ++pages;
  if (settings[kDelay] > 0) std::this_thread::sleep_for(std::chrono::microseconds(settings[kDelay]));
  const int stalls = settings[kStallsAfter], fails = settings[kFailsAfter];
  if (stalls >= 0 && number > stalls) sleep_unless(comm->aborted, [] { return false; });
  if (fails >= 0 && number > fails) comm->state = kRemoteError;
  if (comm->aborted || comm->state != kSuccess) return;
  uint64_t size = count;
  std::byte taken{1};
  auto* size_bytes = reinterpret_cast<std::byte*>(&size);
  bool moved = move_all(comm->fd, size_bytes, sizeof size, out);
  if (moved && size != count) misuse("a receive of another size than its send's");
  moved = moved && move_all(comm->fd, page, count, out) && move_all(comm->fd, &taken, 1, !out);
  if (!moved && !comm->aborted) comm->state = kRemoteError;
  if (moved && !out && settings[kFlips] != 0) page[0] ^= std::byte{1};
}

int enqueue(std::byte* page, size_t count, int type, void* handle, void* stream, bool out) {
  if (type != 1 || page == nullptr || count == 0) misuse("a page is bytes");
  Comm* comm = usable(handle);
  if (comm->state != kSuccess) return comm->state;
  ++comm->operations;
  static_cast<runahead::StreamDouble*>(stream)->enqueue([comm, page, count, out] {
    move_page(comm, page, count, out);
    --comm->operations;
  });
  if (count % 3 != 0) return kSuccess;
  comm->polls_left = 1;  // NCCL says so at times
  return kInProgress;
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) {
  *version = 22900;
  return kSuccess;
}

int ncclGetUniqueId(UniqueId* id) {
  const std::lock_guard lock(mutex);
  const std::string name = "nccl-double-" + std::to_string(getpid()) + "-" + std::to_string(++last_name);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t length = 0;
  const sockaddr_un address = address_of(name, length);
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), length) != 0 || ::listen(listener, 1) != 0)
    return kSystemError;
  listeners[name] = listener;
  std::memset(id, 0, sizeof *id);
  std::memcpy(id->internal, name.data(), name.size());
  return kSuccess;
}

struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

int ncclCommInitRankConfig(void** out, int ranks, UniqueId id, int rank, const Config* config) {
  if (ranks != 2 || config->magic != 0xcafebeef || config->blocking != 0)
    misuse("a communicator of two that does not block");
  if (settings[kRefusesToJoin] != 0) return kInvalidArgument;
  auto* comm = new Comm;
  const std::lock_guard lock(mutex);
  comms.insert(comm);
  comm->joining = std::thread(join, comm, std::string(id.internal), rank);
  *out = comm;
  return kInProgress;
}

int ncclCommGetAsyncError(void* handle, int* state) {
  auto* comm = static_cast<Comm*>(handle);
  {
    const std::lock_guard lock(mutex);
    if (!comms.contains(comm)) misuse("a communicator is asked that has been aborted");
  }
  *state = comm->polls_left > 0 ? static_cast<int>(kInProgress) : comm->state.load();
  if (comm->polls_left > 0) --comm->polls_left;
  return kSuccess;
}

int ncclCommAbort(void* handle) {
  auto* comm = static_cast<Comm*>(handle);
  {
    const std::lock_guard lock(mutex);
    if (comms.erase(comm) == 0) misuse("a communicator is aborted twice");
  }
  comm->aborted = true;
  comm->joining.join();
  if (comm->fd >= 0) ::shutdown(comm->fd, SHUT_RDWR);
  while (comm->operations > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  if (comm->fd >= 0) ::close(comm->fd);
  delete comm;
  return kSuccess;
}

int ncclSend(const void* page, size_t count, int type, int, void* comm, void* stream) {
  return enqueue(static_cast<std::byte*>(const_cast<void*>(page)), count, type, comm, stream, true);
}

int ncclRecv(void* page, size_t count, int type, int, void* comm, void* stream) {
  return enqueue(static_cast<std::byte*>(page), count, type, comm, stream, false);
}

const char* ncclGetErrorString(int status) {
  switch (status) {
    case kSystemError:
      return "unhandled system error";
    case kInvalidArgument:
      return "invalid argument";
    case kRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "error of the double";
  }
}

void nccl_double_set(int what, int count) {
  pages = 0;
  settings[what] = count;
}

int nccl_double_communicators() {
  const std::lock_guard lock(mutex);
  return static_cast<int>(comms.size());
}

}  // extern "C"
