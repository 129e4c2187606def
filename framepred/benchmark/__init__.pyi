from . import reference as reference, throughput as throughput
