// InProcessCluster: ActorCluster and ApiFront on a thread of their own: a whole cluster in this process, for
// `runahead run --in-process`. The API listens on a free loopback port.
//   threads  start() and the destructor from one thread; everything else happens on the cluster's own.
#pragma once

#include <memory>
#include <string>

#include "services/cluster/local_cluster.h"

namespace runahead {

class InProcessCluster {
 public:
  // Uses model, workers, compute, threads, packed_cache and progress of the options; K/V pages move over the memory transport.
  static Result<std::unique_ptr<InProcessCluster>> start(const LocalClusterOptions& options);
  ~InProcessCluster();
  const std::string& http_address() const;

 private:
  class Impl;
  explicit InProcessCluster(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runahead
