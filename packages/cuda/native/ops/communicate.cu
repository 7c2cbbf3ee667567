// all_reduce, all_gather, reduce_scatter, broadcast, exchange: a communicator's calls as kernels, so that they name their operands, go to a
// queue and return an event like all others. NCCL does the work.
#include "gpu/kernel.h"

#if !defined(LOMO_DEVICE)
#include "addon/context.h"
#include "addon/launch.h"

namespace lomo {
namespace {

constexpr int most = most_parcels / 2;  // sends, and as many receives

Communicator& communicator(const Call& call) { return call.context->communicators.at(call.attr(0)); }

void all_reduce(const Call& call) {
  const Operand& x = call.inout(0);
  communicator(call).all_reduce(x.data, x.count(), x.dtype, call.flag(1) ? nccl::max : nccl::sum, call.context->stream);
}
void all_gather(const Call& call) {
  Communicator& c = communicator(call);
  const Operand &from = call.in(0), &to = call.out(0);
  same_size("all_gather", "to", to.count(), from.count() * c.size());
  c.all_gather(to.data, from.data, from.count(), from.dtype, call.context->stream);
}
void reduce_scatter(const Call& call) {
  Communicator& c = communicator(call);
  const Operand &from = call.in(0), &to = call.out(0);
  same_size("reduce_scatter", "from", from.count(), to.count() * c.size());
  c.reduce_scatter(to.data, from.data, to.count(), to.dtype, call.flag(1) ? nccl::max : nccl::sum, call.context->stream);
}

int peer(const Communicator& c, double rank, const char* op) {
  if (!(rank >= 0 && rank < c.size())) throw Error("BadPeer", std::string(op) + ": rank " + std::to_string(static_cast<long long>(rank)) + " is not one of " + std::to_string(c.size()) + ", counted from 0");
  return static_cast<int>(rank);
}

void broadcast(const Call& call) {
  Communicator& c = communicator(call);
  const Operand& x = call.inout(0);
  c.broadcast(x.data, x.count(), x.dtype, peer(c, call.attr(1), "broadcast"), call.context->stream);
}

void exchange(const Call& call) {
  Communicator& c = communicator(call);
  Parcel parcels[most_parcels];
  const auto parcel = [&](int at, const Operand& o, double rank, bool sent) {
    parcels[at] = {o.data, o.count(), o.dtype, peer(c, rank, "exchange"), sent};
    if (parcels[at].peer == c.rank()) throw Error("BadPeer", "exchange: rank " + std::to_string(c.rank()) + (sent ? " sends to" : " receives from") + " itself: copy instead");
  };
  for (int i = 0; i < call.ins; ++i) parcel(i, call.in(i), call.attr(1 + i), true);
  for (int i = 0; i < call.outs; ++i) parcel(call.ins + i, call.out(i), call.attr(1 + most + i), false);
  c.exchange(parcels, call.ins + call.outs, call.context->stream);
}
bool exchanged(const Signature& s) { return s.n_inouts == 0 && s.n_ins <= most && s.n_outs <= most && s.n_ins + s.n_outs > 0; }

}  // namespace

extern const Kernel kernels_communicate[] = {
    {"all_reduce", "communicator maximum", accepts<"|b|">, all_reduce, nullptr},
    {"all_gather", "communicator", accepts<"b||b">, all_gather, nullptr},
    {"reduce_scatter", "communicator maximum", accepts<"b||b">, reduce_scatter, nullptr},
    {"broadcast", "communicator root", accepts<"|x|">, broadcast, nullptr},
    {"exchange", "communicator to_0 to_1 to_2 to_3 from_0 from_1 from_2 from_3", exchanged, exchange, nullptr},
    {},
};

}  // namespace lomo
#endif
