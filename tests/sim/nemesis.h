// Nemesis: kills, pauses and cuts, as the scenario's plan says, until it is told to heal everything.
#pragma once

#include "sim_cluster.h"

namespace runahead::test {

class Nemesis {
 public:
  explicit Nemesis(SimCluster& cluster) : cluster_(cluster) {}

  void start();  // its events are the world's
  // Everybody is up, reachable and awake from now on.
  void heal();
  int32_t kills = 0, pauses = 0, cuts = 0, sticks = 0;

 private:
  void strike();
  void kill(NodeId node);
  void pause(NodeId node);
  void stick(NodeId node);
  void cut(bool both_ways);
  NodeId any_node(bool prefill);

  SimCluster& cluster_;
  bool healed_ = false;
};

}  // namespace runahead::test
