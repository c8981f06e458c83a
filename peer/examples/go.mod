module toa-peer-examples

// From 1.24 on, net.Listen asks for MPTCP where the kernel has it.
go 1.24

require toa/toapeer v0.1.0

replace toa/toapeer => ../go
