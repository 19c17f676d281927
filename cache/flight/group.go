package flight
