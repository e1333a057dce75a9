// JobsApi: the part of JobService (actors/jobs/job_service.h) that the gateway calls, so that tests can stand in for it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/jobs/job_service.h"

namespace runahead {

class JobsApi {
 public:
  virtual ~JobsApi() = default;
  virtual Task<JobView> submit(JobSubmission submission) = 0;
  virtual Task<JobView> find(std::string owner, std::string id) = 0;
  virtual Task<std::vector<JobView>> list(JobQuery query) = 0;
  virtual Task<JobView> cancel(std::string owner, std::string id) = 0;
  virtual Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index) = 0;
};

class JobServiceApi final : public JobsApi {
 public:
  explicit JobServiceApi(JobService& service) : service_(service) {}  // outlives this
  Task<JobView> submit(JobSubmission submission) override { return service_.submit(std::move(submission)); }
  Task<JobView> find(std::string owner, std::string id) override {
    return service_.find(std::move(owner), std::move(id));
  }
  Task<std::vector<JobView>> list(JobQuery query) override { return service_.list(std::move(query)); }
  Task<JobView> cancel(std::string owner, std::string id) override {
    return service_.cancel(std::move(owner), std::move(id));
  }
  Task<std::shared_ptr<JobEvents>> subscribe(std::string owner, std::string id, int32_t first_index) override {
    return service_.subscribe(std::move(owner), std::move(id), first_index);
  }

 private:
  JobService& service_;
};

}  // namespace runahead
