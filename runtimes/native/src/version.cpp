extern "C" int vmp_ops_abi() { return 1; }
