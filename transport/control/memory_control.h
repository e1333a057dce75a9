// MemoryControlHub: the control plane inside one process, for `runahead run --in-process`: one server, any number of
// clients, messages handed over in order and never lost.
//   threads  one io_context thread.
//   owner    planes share the hub's state; a plane that is destroyed shows up at the others as kDisconnected.
#pragma once

#include <memory>
#include <string>

#include "transport/control/control_plane.h"

namespace runahead {

class MemoryControlHub {
 public:
  MemoryControlHub(asio::any_io_executor executor, Clock& clock);
  ~MemoryControlHub();

  // The coordinator's side; lives as long as the hub.
  ControlPlane& server();
  // A worker's side, connected at once: both ends see kConnected.
  std::unique_ptr<ControlPlane> connect();

  // What a network may do to it, for tests: a link that is cut, and messages that are lost without a word.
  PeerId last_peer() const;  // the newest connection; the first is 1
  void cut(PeerId peer, const std::string& why);
  void lose_messages(bool on);

 private:
  struct State;
  class Server;
  class Client;
  std::shared_ptr<State> state_;  // shared with the clients
  std::unique_ptr<Server> server_;
};

}  // namespace runahead
