#include "services/cluster/in_process_cluster.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <future>
#include <thread>

#include "base/async/wake.h"
#include "services/cluster/actor_cluster.h"
#include "services/engine/engine_loading.h"
#include "services/engine/model_path.h"
#include "services/engine/text_codec_loading.h"
#include "services/engine/token_tree_loading.h"
#include "services/job_store/sqlite_job_store.h"
#include "services/process/api_front.h"
#include "services/process/coordinator_service.h"
#include "services/process/process.h"
#include "services/version.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
constexpr auto kReadyTimeout = 30s;
constexpr int32_t kContextsPerPool = 1;  // one prompt runs

}  // namespace

class InProcessCluster::Impl {
 public:
  explicit Impl(const LocalClusterOptions& options)
      : rng_(random_seed()),
        metrics_({.role = "coordinator",
                  .version = kVersion,
                  .revision = kRevision,
                  .model_name = options.engine.model.name}),
        cluster_(io_.get_executor(), clock_, rng_, metrics_, cluster_options(options)),
        stop_(io_.get_executor(), clock_) {}

  ~Impl() {
    if (!thread_.joinable()) return;
    asio::post(io_, [this] { stop_.notify(); });
    thread_.join();
  }

  Result<void> start(const LocalClusterOptions& options) {
    const Gguf file = TRY(open_model(options.engine.model));
    codec_ = TRY(open_text_codec(file, options.chat_template, &local_time_now));
    const std::filesystem::path path = TRY(find_model(options.engine.model.name));
    const GenerationDefaults defaults = TRY(load_generation_defaults(options.generation, path, file));
    job_store_ = TRY(SqliteJobStore::open({}));
    TRY(cluster_.start());
    front_ = std::make_unique<ApiFront>(
        ApiFrontEnv{.executor = io_.get_executor(),
                    .clock = clock_,
                    .rng = rng_,
                    .inference = cluster_.coordinator(),
                    .job_store = *job_store_,
                    .codec = *codec_,
                    .metrics = metrics_},
        ApiFrontOptions{.gateway = {.model_name = "default", .generation_defaults = defaults}});
    TRY(front_->start({}));
    address_ = front_->address();
    auto ready = ready_.get_future();
    asio::co_spawn(io_, serve(), asio::detached);
    thread_ = std::thread([this] { io_.run(); });
    return ready.get();
  }
  const std::string& address() const { return address_; }

 private:
  static ActorClusterOptions cluster_options(const LocalClusterOptions& options) {
    ActorClusterOptions cluster{.prefill_workers = options.workers, .kv_contexts = kContextsPerPool};
    cluster.make_engine = [options](int32_t index) -> Result<std::unique_ptr<Engine>> {
      EngineFlags engine = options.engine;
      engine.threads = options.threads_of(index < options.workers);
      return TRY(open_engine(engine, options.progress && index == 0));
    };
    cluster.make_token_tree = token_tree_of(options.engine.model);
    return cluster;
  }

  asio::awaitable<void> serve() {
    ready_.set_value(co_await cluster_.ready(clock_.after(kReadyTimeout)));
    co_await stop_.wait();  // the destructor notifies it
    co_await front_->shutdown();
    co_await cluster_.stop();
    io_.stop();  // a wait that was ended early may have left its timer: nobody waits for that
  }

  asio::io_context io_{1};
  AsioClock clock_;
  SeededRng rng_;
  CoordinatorMetrics metrics_;
  ActorCluster cluster_;
  std::unique_ptr<ModelTextCodec> codec_;
  std::unique_ptr<SqliteJobStore> job_store_;
  std::unique_ptr<ApiFront> front_;
  Wake stop_;
  std::promise<Result<void>> ready_;
  std::string address_;
  std::thread thread_;
};

Result<std::unique_ptr<InProcessCluster>> InProcessCluster::start(const LocalClusterOptions& options) {
  warn_of_shared_cores(options);
  std::unique_ptr<InProcessCluster> cluster(new InProcessCluster(std::make_unique<Impl>(options)));
  TRY(cluster->impl_->start(options));
  return cluster;
}

InProcessCluster::InProcessCluster(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
InProcessCluster::~InProcessCluster() = default;
const std::string& InProcessCluster::http_address() const { return impl_->address(); }

}  // namespace runahead
