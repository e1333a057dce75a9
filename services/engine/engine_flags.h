// What people say about the model and the engine of a process, as they say it: commands take it, engine_loading reads it.
#pragma once

#include <string>
#include <vector>

namespace runahead {

struct ModelFlags {
  std::string name = "smollm2";  // a short name, or a path
  std::vector<std::string> override_kv;  // KEY=TYPE:VALUE, the same in the whole cluster
};

struct EngineFlags {
  ModelFlags model;
  std::string compute = "auto";
  int threads = 1;
  std::string packed_cache;  // folder of packed weights; empty: the default one; "off": none
};

}  // namespace runahead
