module toa-go-server

// From 1.24 on, net.Listen asks for MPTCP where the kernel has it.
go 1.24
