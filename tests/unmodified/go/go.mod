module unmodified

go 1.21
