module toa/toapeer

go 1.21
